//! Certificates and keys in PEM, as files or as bytes.

use std::{fmt, fs, io::Read as _, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// The largest file taken: all roots of a system are a quarter of it.
const MOST_BYTES: u64 = 1024 * 1024;

/// Where a PEM is.
#[derive(Clone)]
pub(super) enum Pem {
    File(PathBuf),
    Given(Arc<[u8]>),
}

/// What a configuration is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Pems {
    /// Those who may issue the peer's certificate.
    pub(super) ca: Option<Pem>,
    /// Our own certificate and its key.
    pub(super) identity: Option<(Pem, Pem)>,
}

/// The same as it was read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) ca: Option<Content>,
    pub(super) identity: Option<(Content, Content)>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// For errors.
    name: String,
    bytes: Vec<u8>,
}

impl Pems {
    /// Reads all of it. Blocks.
    ///
    /// # Errors
    /// In words: which file cannot be read, and why.
    pub(super) fn read(&self) -> Result<Contents, String> {
        let identity = match &self.identity {
            Some((cert, key)) => {
                Some((cert.read("the certificate given")?, key.read("the key given")?))
            }
            None => None,
        };
        let ca = self.ca.as_ref().map(|ca| ca.read("the CA given")).transpose()?;
        Ok(Contents { ca, identity })
    }

    /// Whether there is something that may change.
    pub(super) fn has_files(&self) -> bool {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        identity.chain(&self.ca).any(|pem| matches!(pem, Pem::File(_)))
    }
}

impl Pem {
    fn read(&self, given: &str) -> Result<Content, String> {
        match self {
            Self::Given(bytes) => Ok(Content { name: given.to_owned(), bytes: bytes.to_vec() }),
            Self::File(path) => {
                let name = path.display().to_string();
                let fail = |error| format!("cannot read {name}: {error}");
                // By the path first: opening a pipe would wait for whoever writes to it.
                if !fs::metadata(path).map_err(fail)?.is_file() {
                    return Err(format!("{name} is no file"));
                }
                let mut bytes = Vec::new();
                let file = fs::File::open(path).map_err(fail)?;
                file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
                if bytes.len() as u64 > MOST_BYTES {
                    return Err(format!("{name} has more than {MOST_BYTES} bytes"));
                }
                Ok(Content { name, bytes })
            }
        }
    }
}

impl fmt::Debug for Pem {
    /// Without what was given, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Given(_) => f.write_str("PEM"),
        }
    }
}

impl Content {
    /// The certificates in it, in their order.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let name = &self.name;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(format!("{name} has no certificate in PEM"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(format!("{name} is not PEM: {error}")),
        }
    }

    /// The certificates in it, as those to trust.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("{} has no root: {error}", self.name))?;
        }
        Ok(roots)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|error| format!("{} has no private key in PEM: {error}", self.name))
    }
}

/// Why a certificate and a key were not taken together.
pub(super) fn unfit((cert, key): &(Content, Content), error: &rustls::Error) -> String {
    let (cert, key) = (&cert.name, &key.name);
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key} is not the key of the first certificate in {cert}")
        }
        error => format!("{cert} and {key} cannot be used: {error}"),
    }
}
