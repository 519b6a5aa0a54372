//! Over TLS with tonic's own client and server: mTLS both ways, and who is refused.

use micro::{
    ChannelOptions, Client, Request, Response, Service, Status, Streaming,
    tls::{ClientTls, ServerTls},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tests::{
    echo::Echo,
    proto::{
        echo::{ChatMessage, EchoClient, SayRequest, register_echo_handler},
        tonic_echo as theirs,
    },
};
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

const NAME: &str = "echo.internal";

/// A CA, and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let (cert, key) = self.issue(name);
        Identity::from_pem(cert, key)
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(&self.pem)
    }
}

#[tokio::test]
async fn tonics_client_calls_our_node() {
    let authority = Authority::new();
    let (cert, key) = authority.issue(NAME);
    let service = Service::builder("echo").without_env().registry("memory://tls-of-tonic");
    let mut service = service.build().await.expect("a service");
    register_echo_handler(service.server(), Echo);
    service.server().tls(ServerTls::from_pem(cert, key).client_ca(&authority.pem));
    let node = service.start().await.expect("it serves");

    let tls = ClientTlsConfig::new().ca_certificate(authority.certificate()).domain_name(NAME);
    let endpoint = Endpoint::try_from(format!("https://{}", node.address())).expect("a URL");
    let with = |tls| endpoint.clone().tls_config(tls).expect("usable").connect_lazy();
    let known = with(tls.clone().identity(authority.identity("tonic")));
    let mut echo = theirs::echo_client::EchoClient::new(known);
    let request = || theirs::SayRequest { payload: vec![7; 100_000] };
    let reply = echo.say(request()).await.expect("a reply").into_inner();
    assert_eq!(reply.payload, vec![7; 100_000]);
    let counted = echo.count(theirs::CountRequest { upto: 1000 }).await.expect("a stream");
    let numbers: Vec<_> =
        counted.into_inner().map(|reply| reply.expect("a number").n).collect().await;
    assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());

    let unknown = with(tls);
    theirs::echo_client::EchoClient::new(unknown)
        .say(request())
        .await
        .expect_err("it has no certificate");
}

/// As tonic's users write it.
struct TonicEcho;

#[tonic::async_trait]
impl theirs::echo_server::Echo for TonicEcho {
    async fn say(
        &self,
        request: Request<theirs::SayRequest>,
    ) -> Result<Response<theirs::SayReply>, Status> {
        // What only the side that terminates TLS has.
        assert!(request.peer_certs().is_some_and(|certificates| certificates.len() == 1));
        let payload = request.into_inner().payload;
        Ok(Response::new(theirs::SayReply { payload, node: String::new() }))
    }

    type CountStream = Unused<theirs::CountReply>;

    async fn count(
        &self,
        _: Request<theirs::CountRequest>,
    ) -> Result<Response<Self::CountStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn sum(
        &self,
        _: Request<Streaming<theirs::SumRequest>>,
    ) -> Result<Response<theirs::SumReply>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type ChatStream = Streaming<theirs::ChatMessage>;

    async fn chat(
        &self,
        request: Request<Streaming<theirs::ChatMessage>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

type Unused<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A server of tonic's, and its address.
async fn tonics_server(authority: &Authority) -> (AbortHandle, String) {
    let tls = ServerTlsConfig::new()
        .identity(authority.identity(NAME))
        .client_ca_root(authority.certificate());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = Server::builder()
        .tls_config(tls)
        .expect("usable")
        .add_service(theirs::echo_server::EchoServer::new(TonicEcho))
        .serve_with_incoming(TcpListenerStream::new(listener));
    (tokio::spawn(server).abort_handle(), address)
}

#[tokio::test]
async fn our_client_calls_tonics_server() {
    let authority = Authority::new();
    let (server, address) = tonics_server(&authority).await;
    let client = |tls: ClientTls| {
        Client::builder()
            .without_env()
            .registry(format!("static://echo={address}"))
            .for_all(ChannelOptions::new().tls(tls))
            .build()
            .expect("a client")
    };
    let trusting = ClientTls::new().ca(&authority.pem).server_name(NAME);
    let (cert, key) = authority.issue("micro");
    let known = client(trusting.clone().identity(cert, key));
    let echo = EchoClient::new("echo", &known);
    let request = || SayRequest { payload: vec![7; 100_000] };
    let reply = echo.say(request()).await.expect("a reply").into_inner();
    assert_eq!(reply.payload, vec![7; 100_000]);
    let said: Vec<_> = (0..100).map(|n| ChatMessage { text: format!("{n}") }).collect();
    let chat = echo.chat(tokio_stream::iter(said.clone())).await.expect("a stream");
    let heard: Result<Vec<_>, _> = chat.into_inner().collect().await;
    assert_eq!(heard.expect("all of it"), said);

    let unknown = client(trusting);
    let status = EchoClient::new("echo", &unknown).say(request()).fail_fast().await;
    let status = status.expect_err("it has no certificate");
    for part in [&address, "the node refused the client", "`ClientTls::identity_files`"] {
        assert!(status.message().contains(part), "{part:?} is not in: {}", status.message());
    }
    server.abort();
}
