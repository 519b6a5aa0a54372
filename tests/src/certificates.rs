//! The certificates of a fleet and its client, in folders that they are read from anew when they change.

use std::{fs, path::Path};

use micro::tls::ClientTls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// What the nodes' certificates are for.
const NAME: &str = "ledger.internal";

/// The folders of the nodes and of the client.
pub const FOLDERS: [&str; 4] = ["a", "b", "c", "client"];

/// A CA, and what it issues.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

impl Authority {
    /// A CA of this name.
    ///
    /// # Panics
    /// When it cannot sign itself.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Puts a new certificate and its key into that folder.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn issue(&self, folder: &Path) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        replace(&folder.join("cert"), &certificate.pem());
        replace(&folder.join("key"), &key.serialize_pem());
    }
}

/// Puts another file in the place of one, if there is one, at once.
///
/// # Panics
/// When it cannot be written.
pub fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("written");
    fs::rename(next, path).expect("replaced");
}

/// All folders, with what one CA issued.
///
/// # Panics
/// When they cannot be written.
pub fn folders(authority: &Authority) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in FOLDERS {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        replace(&folder.join("ca"), &authority.pem);
        replace(&folder.join("name"), NAME);
        authority.issue(&folder);
    }
    dir
}

/// What a client of such a fleet has in its folder.
pub fn tls(folder: &Path) -> ClientTls {
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| folder.join(name));
    ClientTls::new().ca_file(ca).identity_files(cert, key).server_name(NAME)
}
