//! Handshakes over pipes, between our client and our server, and with those that are not as ours.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::date_time_ymd;
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, version};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ClientTls, ServerTls};
use crate::fixture::{Authority, Log};

const NODE: &str = "greeter.internal";

/// What each side says of the handshake, and what the client hears afterwards.
async fn shake(client: &ClientTls, server: &ServerTls) -> (Result<(), String>, Result<(), String>) {
    shake_as(NODE, client, server).await
}

async fn shake_as(
    host: &str,
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<(), String>, Result<(), String>) {
    let (connector, acceptor) = (client.connector().unwrap(), server.acceptor().unwrap());
    let (ours, theirs) = duplex(64 * 1024);
    let connecting = async {
        let mut stream = connector.connect(ours, host).await?;
        let refusal = stream.refusal();
        let mut greeting = [0; 5];
        match stream.read_exact(&mut greeting).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal.get().map_or_else(|| error.to_string(), str::to_owned)),
        }
    };
    let accepting = async {
        let mut stream = acceptor.accept(theirs).await?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())
    };
    tokio::join!(connecting, accepting)
}

#[track_caller]
fn told(result: Result<(), String>, parts: &[&str]) {
    let why = result.expect_err("refused");
    for part in parts {
        assert!(why.contains(part), "{part:?} is not in: {why}");
    }
}

#[tokio::test]
async fn who_is_trusted_is_connected_by_name_and_by_address() {
    let authority = Authority::new();
    for (host, name) in [(NODE, NODE), ("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::1")] {
        let (client, server) = shake_as(host, &authority.client(), &authority.server(name)).await;
        assert_eq!((client, server), (Ok(()), Ok(())), "{host}");
    }
    let client = authority.client().server_name(NODE);
    let by_name = shake_as("10.0.0.1", &client, &authority.server(NODE)).await;
    assert_eq!(by_name, (Ok(()), Ok(())), "on any address");
}

#[tokio::test]
async fn a_client_says_why_it_does_not_trust_a_node() {
    let authority = Authority::new();
    let with = |change: fn(&mut rcgen::CertificateParams)| {
        let (cert, key) = authority.issue_with(NODE, change);
        ServerTls::from_pem(cert, key)
    };
    let namesake = [(); 2].map(|()| Authority::named("a CA with a new key"));
    let (client, refused) = shake(&namesake[0].client(), &namesake[1].server(NODE)).await;
    told(client, &["its issuer is unknown"]);
    told(refused, &["the client refused this node's certificate"]);
    for (server, parts) in [
        (Authority::new().server(NODE), ["its issuer is unknown", "`ClientTls::ca_file`"]),
        (
            authority.server("other.internal"),
            ["it is for other.internal, not for greeter.internal", "`ClientTls::server_name`"],
        ),
        (with(|it| it.not_after = date_time_ymd(2001, 1, 1)), ["expired", "needs a new one"]),
        (with(|it| it.not_before = date_time_ymd(3001, 1, 1)), ["not valid yet", "clock is wrong"]),
        (
            ServerTls::from_pem(&authority.pem, &authority.key),
            ["does not trust the node's certificate", "have the CA issue one for the node"],
        ),
    ] {
        let (client, server) = shake(&authority.client(), &server).await;
        told(client, &parts);
        told(server, &["the client refused this node's certificate, by the alert"]);
    }
}

#[tokio::test]
async fn a_server_that_requires_certificates_says_whom_it_refuses() {
    let authority = Authority::new();
    let server = authority.server(NODE).client_ca(&authority.pem);
    let (cert, key) = authority.issue("shop");
    let known = authority.client().identity(cert, key);
    assert_eq!(shake(&known, &server).await, (Ok(()), Ok(())));

    let (client, refused) = shake(&authority.client(), &server).await;
    told(client, &["the node refused the client", "give one to `ClientTls::identity_files`"]);
    told(refused, &["the client has no certificate, which is required"]);

    let (cert, key) = Authority::new().issue("shop");
    let (client, refused) = shake(&authority.client().identity(cert, key), &server).await;
    told(client, &["the node refused the client", "`ServerTls::client_ca_file`"]);
    told(refused, &["the client's certificate is refused: UnknownIssuer"]);

    let (cert, key) = authority.issue_with("shop", |it| it.not_after = date_time_ymd(2001, 1, 1));
    let (client, refused) = shake(&authority.client().identity(cert, key), &server).await;
    told(client, &["the client's certificate has expired"]);
    told(refused, &["the client's certificate is refused: ", "expired"]);
}

/// A peer that is set up by hand: with one version of TLS, and its own ALPN.
fn by_hand(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[&[u8]],
) -> (TlsConnector, TlsAcceptor) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.pem)).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone());
    let client = client.with_protocol_versions(&[version]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    let (cert, key) = authority.issue(NODE);
    let server = ServerConfig::builder_with_provider(provider);
    let server = server.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut server = server.with_single_cert(vec![certificate(&cert)], key).unwrap();
    client.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    server.alpn_protocols = client.alpn_protocols.clone();
    (Arc::new(client).into(), Arc::new(server).into())
}

#[tokio::test]
async fn a_peer_has_to_speak_http2_over_tls_1_2_or_1_3() {
    let authority = Authority::new();
    let node = authority.server(NODE).acceptor().unwrap();
    let client = authority.client().connector().unwrap();
    let pipes = || duplex(64 * 1024);
    for version in [&version::TLS12, &version::TLS13] {
        let (connector, acceptor) = by_hand(&authority, version, &[b"h2", b"http/1.1"]);
        let (ours, theirs) = pipes();
        let (accepted, _) =
            tokio::join!(node.accept(ours), connector.connect(NODE.try_into().unwrap(), theirs),);
        accepted.unwrap_or_else(|why| panic!("{version:?}: {why}"));
        let (ours, theirs) = pipes();
        let (connected, _) = tokio::join!(client.connect(ours, NODE), acceptor.accept(theirs));
        connected.unwrap_or_else(|why| panic!("{version:?}: {why}"));

        for (alpn, of_server, of_client) in [
            (&[][..], "did not ask for HTTP/2", "agreed to TLS, but not to HTTP/2"),
            (&[&b"http/1.1"[..]], "support any known protocol", "does not speak HTTP/2 over TLS"),
        ] {
            let (connector, acceptor) = by_hand(&authority, version, alpn);
            let (ours, theirs) = pipes();
            let (accepted, _) = tokio::join!(
                node.accept(ours),
                connector.connect(NODE.try_into().unwrap(), theirs),
            );
            told(accepted.map(drop), &[of_server]);
            let (ours, theirs) = pipes();
            let (connected, _) = tokio::join!(client.connect(ours, NODE), acceptor.accept(theirs));
            told(connected.map(drop), &[of_client]);
        }
    }
}

#[tokio::test]
async fn a_peer_in_plaintext_is_told_as_such() {
    let authority = Authority::new();
    let (ours, mut theirs) = duplex(64 * 1024);
    let accepting = authority.server(NODE).acceptor().unwrap();
    theirs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (accepted, answer) = tokio::join!(accepting.accept(ours), read_all(theirs));
    told(accepted.map(drop), &["the client does not speak TLS"]);
    assert_eq!(&answer[..2], &[21, 3], "an alert");

    let client = authority.client().connector().unwrap();
    let (ours, mut theirs) = duplex(64 * 1024);
    theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    told(client.connect(ours, NODE).await.map(drop), &["not TLS", "`Server::tls`"]);
    let (ours, theirs) = duplex(64 * 1024);
    drop(theirs);
    told(client.connect(ours, NODE).await.map(drop), &["closed the connection amid the handshake"]);
}

async fn read_all(mut io: DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn what_cannot_be_used_is_named() {
    let authority = Authority::new();
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (cert, key) = authority.issue(NODE);
    for (name, text) in [("ca", &authority.pem), ("cert", &cert), ("key", &key)] {
        std::fs::write(path(name), text).unwrap();
    }
    std::fs::write(path("other"), authority.issue(NODE).1).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("large"), vec![b'a'; (1 << 20) + 1]).unwrap();
    std::fs::write(path("torn"), &cert[..cert.len() / 2]).unwrap();

    ServerTls::from_files(path("cert"), path("key")).client_ca_file(path("ca")).acceptor().unwrap();
    for (cert, key, named) in [
        ("nowhere", "key", "cannot read"),
        (".", "key", "is no file"),
        ("large", "key", "has more than 1048576 bytes"),
        ("empty", "key", "empty has no certificate in PEM"),
        ("torn", "key", "torn is not PEM"),
        ("cert", "cert", "cert has no private key in PEM"),
        ("cert", "other", "other is not the key of the first certificate in "),
    ] {
        let error = ServerTls::from_files(path(cert), path(key)).acceptor().unwrap_err();
        assert!(error.is_config() && error.to_string().starts_with("TLS of the server: "));
        assert!(error.to_string().contains(named), "{named:?} is not in: {error}");
        let error = ClientTls::new().ca_file(path("ca")).identity_files(path(cert), path(key));
        let error = error.connector().unwrap_err().to_string();
        assert!(error.starts_with("TLS of the client: ") && error.contains(named), "{error}");
    }
    for (client, named) in [
        (ClientTls::new().ca("no PEM"), "the CA given has no certificate in PEM"),
        (authority.client().identity(&cert, "none"), "the key given has no private key in PEM"),
        (authority.client().server_name("a b"), r#"server_name "a b" is neither a DNS name nor"#),
    ] {
        let error = client.connector().unwrap_err().to_string();
        assert!(error.contains(named), "{named:?} is not in: {error}");
    }
}

#[test]
fn no_key_is_in_any_text() {
    let authority = Authority::new();
    let (cert, key) = authority.issue(NODE);
    let server = ServerTls::from_pem(&cert, &key);
    let client = authority.client().identity(&cert, &key);
    let texts = format!(
        "{server:?} {client:?} {:?} {:?}",
        server.acceptor().unwrap(),
        client.connector().unwrap()
    );
    assert!(!texts.contains("KEY") && texts.contains("PEM"), "{texts}");
}

/// Replaces a file as a careful program does.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Files of ours, which a newer CA's are to replace.
struct Replaced {
    new: Authority,
    paths: [PathBuf; 3],
    _dir: TempDir,
}

impl Replaced {
    fn of(old: &Authority) -> Self {
        let dir = TempDir::new().unwrap();
        let paths = ["ca", "cert", "key"].map(|name| dir.path().join(name));
        let replaced = Self { new: Authority::new(), paths, _dir: dir };
        replaced.write(old);
        replaced
    }

    fn write(&self, authority: &Authority) {
        let [ca, cert, key] = &self.paths;
        let (issued, its_key) = authority.issue(NODE);
        for (path, text) in [(ca, &authority.pem), (cert, &issued), (key, &its_key)] {
            replace(path, text);
        }
    }

    /// Both sides, the files read.
    fn opened(&self) -> (ClientTls, ServerTls) {
        let [ca, cert, key] = &self.paths;
        let client = ClientTls::new().ca_file(ca).identity_files(cert, key);
        let server = ServerTls::from_files(cert, key);
        client.connector().unwrap();
        server.acceptor().unwrap();
        (client, server)
    }

    /// Whether both sides have what is new, on connections that are all the first.
    async fn are_new(&self, (client, server): &(ClientTls, ServerTls)) {
        let (caller, node) = (self.new.client(), self.new.server(NODE).client_ca(&self.new.pem));
        let calling = || shake(client, &node);
        let serving = || shake(&caller, server);
        let all = tokio::join!(calling(), calling(), serving(), serving());
        for side in [all.0, all.1, all.2, all.3] {
            assert_eq!(side, (Ok(()), Ok(())), "with what has been there since before");
        }
    }
}

#[test]
fn files_that_were_replaced_while_no_runtime_looked_are_those_of_the_first_connections() {
    let files = Replaced::of(&Authority::new());
    let opened = files.opened();
    files.write(&files.new);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime().block_on(files.are_new(&opened));

    // Nor did one look after the runtime was gone.
    let files = Replaced { new: Authority::new(), ..files };
    files.write(&files.new);
    runtime().block_on(files.are_new(&opened));
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_from_the_start_until_nobody_has_the_configuration() {
    let files = Replaced::of(&Authority::new());
    let opened = files.opened();
    files.write(&files.new);
    sleep(Duration::from_secs(2)).await;
    files.are_new(&opened).await;

    drop(opened);
    sleep(Duration::from_secs(1)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 0, "a task must not outlive what it is for");
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_when_they_change_and_what_cannot_be_used_is_told_once() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = TempDir::new().unwrap();
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| dir.path().join(name));
    let write = |authority: &Authority| {
        let (issued, its_key) = authority.issue(NODE);
        replace(&key, &its_key);
        replace(&cert, &issued);
    };
    replace(&ca, &old.pem);
    write(&old);
    let server = ServerTls::from_files(&cert, &key);
    let client = ClientTls::new().ca_file(&ca);
    assert_eq!(shake(&client, &server).await, (Ok(()), Ok(())));

    replace(&ca, &format!("{}{}", old.pem, new.pem));
    let until = async |client: &ClientTls, is_trusted: bool| {
        let changed = async {
            while shake(client, &server).await.0.is_ok() != is_trusted {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(5), changed).await.expect("within about a second");
    };
    until(&client, true).await;
    write(&new);
    until(&new.client(), true).await;
    // It has had the time too, and trusts both.
    assert_eq!(shake(&client, &server).await, (Ok(()), Ok(())));

    // Nobody but this test looks at the files of this one.
    let unused = ServerTls::from_files(&cert, &key).acceptor().unwrap();
    replace(&key, "spoilt");
    let log = Log::down_to(tracing::Level::WARN);
    for _ in 0..4 {
        unused.look();
    }
    assert_eq!(shake(&client, &server).await, (Ok(()), Ok(())), "with what was read before");
    let lines = log.lines_with("still using the certificates read before: ");
    assert!(matches!(&lines[..], [line] if line.contains("key has no private key")), "{lines:?}");
    drop(log);
    write(&old);
    until(&old.client(), true).await;
}
