//! The server's side.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, sink},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    H2,
    live::Live,
    pem::{self, Contents, Pem, Pems},
    refusal,
};
use crate::Error;

/// What a server shows to its callers, and whom it lets in: for
/// [`Server::tls`](crate::Server::tls).
///
/// It is TLS 1.3 or 1.2, with HTTP/2 agreed on by ALPN; who speaks neither TLS nor HTTP/2 is turned
/// away. A connection that comes has 10 s for its handshake, and keeps no other waiting.
///
/// Files are read when the service starts, and again when they change, as the
/// [guide](crate::guide::tls#renewal) says.
#[derive(Clone)]
#[must_use = "it does nothing until a server has it"]
pub struct ServerTls {
    pems: Pems,
    live: Arc<OnceLock<Arc<Live<ServerConfig>>>>,
}

impl ServerTls {
    /// Shows the certificate in the first file, with those between it and the CA behind it, whose
    /// private key (PKCS #8, PKCS #1 or SEC 1) is in the second; both in PEM. Lets everybody in.
    pub fn from_files(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::of(Pem::File(cert.into()), Pem::File(key.into()))
    }

    /// As [`from_files`](Self::from_files), of the PEM itself.
    pub fn from_pem(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self::of(Pem::Given(cert.as_ref().into()), Pem::Given(key.as_ref().into()))
    }

    /// Lets only those in that show a certificate issued by one of those in this file, in PEM (mTLS).
    /// Callers show theirs by [`ClientTls::identity_files`](super::ClientTls::identity_files).
    pub fn client_ca_file(self, file: impl Into<PathBuf>) -> Self {
        self.with_client_ca(Pem::File(file.into()))
    }

    /// As [`client_ca_file`](Self::client_ca_file), of the PEM itself.
    pub fn client_ca(self, pem: impl AsRef<[u8]>) -> Self {
        self.with_client_ca(Pem::Given(pem.as_ref().into()))
    }

    fn of(cert: Pem, key: Pem) -> Self {
        let pems = Pems { ca: None, identity: Some((cert, key)) };
        Self { pems, live: Arc::default() }
    }

    fn with_client_ca(mut self, ca: Pem) -> Self {
        self.pems.ca = Some(ca);
        self.live = Arc::default();
        self
    }

    /// Reads the files, unless a clone has.
    ///
    /// # Errors
    /// `Config` when one of them cannot be used.
    pub(crate) fn acceptor(&self) -> Result<Acceptor, Error> {
        let live = match self.live.get() {
            Some(live) => live.clone(),
            None => {
                let live = Live::open("server", self.pems.clone(), make);
                let live =
                    live.map_err(|why| Error::config(format!("TLS of the server: {why}")))?;
                self.live.get_or_init(|| live).clone()
            }
        };
        Ok(Acceptor { live })
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("identity", &self.pems.identity)
            .field("client_ca", &self.pems.ca)
            .finish()
    }
}

fn make(contents: &Contents) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match &contents.ca {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(ca.roots()?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let identity = contents.identity.as_ref().expect("a server has one from the beginning");
    let mut config = config
        .with_single_cert(identity.0.certificates()?, identity.1.key()?)
        .map_err(|error| pem::unfit(identity, &error))?;
    config.alpn_protocols = vec![H2.to_vec()];
    // Connections last: each proves anew who is there, by the certificates of its time.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How long a peer that was refused has to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// What it may send meanwhile, in bytes.
const FAREWELL_BYTES: u64 = 64 * 1024;

/// Makes connections of peers secure.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    live: Arc<Live<ServerConfig>>,
}

impl Acceptor {
    /// Looks at the files, as it does by itself.
    #[cfg(test)]
    pub(super) fn look(&self) {
        self.live.look();
    }

    /// Shakes hands with a peer, however long that takes.
    ///
    /// # Errors
    /// In words: who refused what.
    pub(crate) async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, String>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.live.current().await);
        match acceptor.accept(io).into_fallible().await {
            Ok(tls) if tls.get_ref().1.alpn_protocol() == Some(H2) => Ok(tls),
            Ok(_) => Err("the client did not ask for HTTP/2 on it (ALPN `h2`)".to_owned()),
            Err((error, io)) => {
                let _ = timeout(FAREWELL, part(io)).await;
                Err(refusal::of_server(&error))
            }
        }
    }
}

/// Ends a connection so that the peer reads the alert that was written last: closed with something
/// unread, it would be reset, and some systems then drop what the peer has not read yet.
async fn part<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    if io.shutdown().await.is_ok() {
        let _ = copy(&mut io.take(FAREWELL_BYTES), &mut sink()).await;
    }
}
