//! Who takes part: micro, tonic's balanced channel, tonic's single channel, and `h2` with nothing on
//! top. Each at its best settings: no delay, the windows that micro has, no limits in the way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderValue, Request, Uri, Version, header};
use micro::{Client, ClientBuilder, layer::Next};
use prost::Message;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::proto::{
    echo::{EchoClient, SayReply, SayRequest},
    tonic_echo,
};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const PAYLOAD: usize = 64;

/// Makes one unary call with 64 bytes each way. A clone makes calls of its own, over the same
/// connections.
pub trait Contestant: Clone + Send + 'static {
    /// Calls and waits for the reply.
    ///
    /// # Panics
    /// When the call fails: a benchmark of failures says nothing.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

fn payload() -> Vec<u8> {
    vec![7; PAYLOAD]
}

/// Makes a request's message and reads one from a reply: what each contestant's caller does too.
///
/// # Panics
/// Never.
pub fn messages_alone() {
    static REPLY: [u8; PAYLOAD + 2] = {
        let mut reply = [7; PAYLOAD + 2];
        (reply[0], reply[1]) = (10, PAYLOAD as u8); // field 1, and its length
        reply
    };
    let request = SayRequest { payload: std::hint::black_box(payload()) };
    let reply = SayReply::decode(Bytes::from_static(&REPLY)).expect("a message");
    std::hint::black_box((request, reply));
}

// ===== micro =====

/// Our stub on our channel.
#[derive(Debug, Clone)]
pub struct Micro(EchoClient);

impl Micro {
    /// Over all the nodes.
    ///
    /// # Panics
    /// When the addresses are not such.
    pub fn new(addresses: &[String]) -> Self {
        Self::over(addresses, |client| client)
    }

    /// Over all the nodes, through an interceptor that does nothing.
    ///
    /// # Panics
    /// When the addresses are not such.
    pub fn intercepted(addresses: &[String]) -> Self {
        Self::over(addresses, |client| client.intercept(|request, next: Next| next.run(request)))
    }

    fn over(addresses: &[String], with: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let registry = format!("static://echo={}", addresses.join(","));
        let client = with(Client::builder().registry(registry)).build().expect("a client");
        Self(EchoClient::new("echo", &client))
    }
}

impl Contestant for Micro {
    async fn call(&mut self) {
        let reply = self.0.say(SayRequest { payload: payload() }).await.expect("an answer");
        assert_eq!(reply.get_ref().payload.len(), PAYLOAD);
    }
}

// ===== tonic =====

/// Tonic's stub on one of tonic's channels.
#[derive(Debug, Clone)]
pub struct Tonic(tonic_echo::echo_client::EchoClient<Channel>);

impl Tonic {
    /// Over all the nodes, with tonic's own balancing.
    pub fn balanced(addresses: &[String]) -> Self {
        let channel = Channel::balance_list(addresses.iter().map(|address| endpoint(address)));
        Self(tonic_echo::echo_client::EchoClient::new(channel))
    }

    /// Over one connection to one node.
    pub fn raw(address: &str) -> Self {
        Self(tonic_echo::echo_client::EchoClient::new(endpoint(address).connect_lazy()))
    }
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

impl Contestant for Tonic {
    async fn call(&mut self) {
        let request = tonic_echo::SayRequest { payload: payload() };
        let reply = self.0.say(request).await.expect("an answer");
        assert_eq!(reply.get_ref().payload.len(), PAYLOAD);
    }
}

// ===== h2 =====

/// A connection to each node, in turn; no deadline, no balancing, no errors told apart.
#[derive(Clone)]
pub struct BareH2 {
    connections: Vec<(SendRequest<Bytes>, Uri)>,
    next: usize,
}

impl std::fmt::Debug for BareH2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareH2").field("connections", &self.connections.len()).finish()
    }
}

impl BareH2 {
    /// Connects to all the nodes.
    ///
    /// # Panics
    /// When one cannot be reached.
    pub async fn connect(addresses: &[String]) -> Self {
        let mut connections = Vec::new();
        for address in addresses {
            let stream = TcpStream::connect(address).await.expect("a node listens");
            stream.set_nodelay(true).expect("a TCP option");
            let (sender, connection) = h2::client::Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(stream)
                .await
                .expect("a node speaks HTTP/2");
            tokio::spawn(connection);
            let uri = format!("http://{address}/echo.v1.Echo/Say").parse().expect("a URI");
            connections.push((sender, uri));
        }
        Self { connections, next: 0 }
    }
}

impl Contestant for BareH2 {
    async fn call(&mut self) {
        self.next = (self.next + 1) % self.connections.len();
        let (sender, uri) = self.connections[self.next].clone();

        let message = SayRequest { payload: payload() };
        let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
        frame.put_u8(0);
        frame.put_u32(message.encoded_len() as u32);
        message.encode(&mut frame).expect("the buffer has room");
        let request = Request::post(uri)
            .version(Version::HTTP_2)
            .header(header::TE, HeaderValue::from_static("trailers"))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .body(())
            .expect("a request");

        let mut sender = sender.ready().await.expect("an open connection");
        let (response, mut stream) = sender.send_request(request, false).expect("a stream");
        stream.send_data(frame.freeze(), true).expect("an open stream");
        let mut body = response.await.expect("an answer").into_body();
        // 64 bytes always come in one frame.
        let mut reply = body.data().await.expect("an answer").expect("the whole answer");
        body.flow_control().release_capacity(reply.len()).expect("what was received");
        let trailers = body.trailers().await.expect("the answer's end").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        reply.advance(5);
        let reply = SayReply::decode(reply).expect("a message");
        assert_eq!(reply.payload.len(), PAYLOAD);
    }
}
