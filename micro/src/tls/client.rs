//! The client's side.

use std::{
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use rustls::{ClientConfig, client::Resumption, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    H2,
    live::Live,
    pem::{self, Contents, Pem, Pems},
    refusal,
};
use crate::Error;

/// How a client tells that a node is the right one, and shows what it is itself: for
/// [`ChannelOptions::tls`](crate::ChannelOptions::tls).
///
/// A node's certificate has to be issued by a CA that the client trusts, be valid now, and be for the
/// host of the node's address in the registry, unless [`server_name`](Self::server_name) says
/// otherwise. It is TLS 1.3 or 1.2, with HTTP/2 agreed on by ALPN.
///
/// Files are read when the client is built, and again when they change, as the
/// [guide](crate::guide::tls#renewal) says.
#[derive(Clone, Default)]
#[must_use = "it does nothing until ChannelOptions have it"]
pub struct ClientTls {
    pems: Pems,
    server_name: Option<String>,
    /// What clones share, so that however many channels there are, the files are looked at once.
    live: Arc<OnceLock<Arc<Live<ClientConfig>>>>,
}

impl ClientTls {
    /// Trusts whom the operating system trusts, and shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in this file, in PEM, and whom they issued one for; nobody else, the
    /// operating system's roots included. Usually it is that of a fleet's own CA; two while one CA
    /// takes over from another.
    pub fn ca_file(self, file: impl Into<PathBuf>) -> Self {
        self.with_ca(Pem::File(file.into()))
    }

    /// As [`ca_file`](Self::ca_file), of the PEM itself.
    pub fn ca(self, pem: impl AsRef<[u8]>) -> Self {
        self.with_ca(Pem::Given(pem.as_ref().into()))
    }

    /// The certificate that the client shows to nodes that ask for one (mTLS), with those between it
    /// and the CA behind it, and its private key (PKCS #8, PKCS #1 or SEC 1); both in PEM.
    pub fn identity_files(self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.with_identity(Pem::File(cert.into()), Pem::File(key.into()))
    }

    /// As [`identity_files`](Self::identity_files), of the PEM itself.
    pub fn identity(self, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.with_identity(Pem::Given(cert.as_ref().into()), Pem::Given(key.as_ref().into()))
    }

    /// The name, or the IP address, that the certificates of all nodes have to be for. Default: the
    /// host of each node's address.
    ///
    /// Registries list IP addresses as a rule, and certificates are seldom issued for them: give the
    /// nodes of a service certificates for one DNS name, such as `greeter.internal`, and say it
    /// here. Callers then know that they talk to the service, on whichever address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    fn with_ca(mut self, ca: Pem) -> Self {
        self.pems.ca = Some(ca);
        self.live = Arc::default();
        self
    }

    fn with_identity(mut self, cert: Pem, key: Pem) -> Self {
        self.pems.identity = Some((cert, key));
        self.live = Arc::default();
        self
    }

    /// Reads the files, unless a clone has.
    ///
    /// # Errors
    /// `Config` when a file or a name cannot be used.
    pub(crate) fn connector(&self) -> Result<Connector, Error> {
        let fail = |why| Error::config(format!("TLS of the client: {why}"));
        let server_name = match &self.server_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                fail(format!("server_name {name:?} is neither a DNS name nor an IP address"))
            })?),
            None => None,
        };
        let live = match self.live.get() {
            Some(live) => live.clone(),
            None => {
                let live = Live::open("client", self.pems.clone(), make).map_err(fail)?;
                self.live.get_or_init(|| live).clone()
            }
        };
        Ok(Connector { live, server_name })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("ca", &self.pems.ca)
            .field("identity", &self.pems.identity)
            .field("server_name", &self.server_name)
            .finish()
    }
}

fn make(contents: &Contents) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match &contents.ca {
        Some(ca) => config.with_root_certificates(ca.roots()?),
        None => config.with_platform_verifier().map_err(|error| {
            format!("the system's roots cannot be used: {error}; give others to `ca_file`")
        })?,
    };
    let mut config = match &contents.identity {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(identity.0.certificates()?, identity.1.key()?)
            .map_err(|error| pem::unfit(identity, &error))?,
    };
    config.alpn_protocols = vec![H2.to_vec()];
    // Connections last: each proves anew who is there, by the certificates of its time.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Makes connections to nodes secure.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    live: Arc<Live<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// Shakes hands with the node whose address has this host, an IPv6 one without brackets.
    ///
    /// # Errors
    /// In words: who refused what, and the remedy.
    pub(crate) async fn connect<IO>(&self, io: IO, host: &str) -> Result<ClientStream<IO>, String>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                format!(
                    "{host:?} is no name that a certificate is for: see `ClientTls::server_name`"
                )
            })?,
        };
        let connector = TlsConnector::from(self.live.current().await);
        let tls = connector.connect(name, io).await;
        let tls = tls.map_err(|error| refusal::of_client(&error))?;
        if tls.get_ref().1.alpn_protocol() != Some(H2) {
            return Err("the node agreed to TLS, but not to HTTP/2 on it (ALPN `h2`)".to_owned());
        }
        Ok(ClientStream { tls, refusal: Refusal::default() })
    }
}

/// A connection on which the client takes the handshake for done.
#[derive(Debug)]
pub(crate) struct ClientStream<IO> {
    tls: TlsStream<IO>,
    refusal: Refusal,
}

/// What the node says against the client after the handshake, once it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal(Arc<OnceLock<String>>);

impl Refusal {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn note(&self, error: &io::Error) {
        if let Some(why) = refusal::of_client_later(error) {
            let _ = self.0.set(why);
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ClientStream<IO> {
    pub(crate) fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }

    /// Who refuses may close the connection at once, and what was not read yet on the other side then
    /// fails our writes before we come to read why.
    fn look_for_refusal<T>(&mut self, cx: &mut Context<'_>, result: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(_)) = result {
            let mut rest = [0; 1024];
            let read = Pin::new(&mut self.tls).poll_read(cx, &mut ReadBuf::new(&mut rest));
            if let Poll::Ready(Err(error)) = read {
                self.refusal.note(&error);
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.refusal.note(error);
        }
        read
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.look_for_refusal(cx, &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write_vectored(cx, bufs);
        self.look_for_refusal(cx, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.tls).poll_flush(cx);
        self.look_for_refusal(cx, &flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
