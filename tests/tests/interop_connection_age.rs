//! With a server of tonic's that asks each connection to leave for its age.

use std::time::Duration;

use futures_util::{StreamExt as _, future::join_all};
use micro::{ChannelOptions, Client, Request, Response, Status};
use tests::proto::{
    ledger::{Entry, LedgerClient},
    tonic_ledger::{self as theirs, ledger_server},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// How many calls the node may have.
const LIMIT: u32 = 2;

/// A node whose calls outlast the connection that they came by, and the next.
#[derive(Debug, Clone)]
struct Outlasting {
    /// How many connections there were.
    connections: watch::Sender<usize>,
    /// How many calls there are, and the most that there were.
    calls: watch::Sender<(u32, u32)>,
}

#[tonic::async_trait]
impl ledger_server::Ledger for Outlasting {
    async fn read(&self, _: Request<theirs::Entry>) -> Result<Response<theirs::Receipt>, Status> {
        self.calls.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        let mut connections = self.connections.subscribe();
        let at_first = *connections.borrow();
        let is_later = connections.wait_for(|count| *count >= at_first + 2).await.is_ok();
        self.calls.send_modify(|(now, _)| *now -= 1);
        assert!(is_later, "the sender is ours");
        Ok(Response::new(theirs::Receipt::default()))
    }

    async fn write(&self, _: Request<theirs::Entry>) -> Result<Response<theirs::Receipt>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

#[tokio::test]
async fn calls_on_a_connection_that_is_to_leave_count_against_the_limit_of_their_node() {
    let node = Outlasting { connections: watch::Sender::new(0), calls: watch::Sender::new((0, 0)) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let connections = node.connections.clone();
    let incoming = TcpListenerStream::new(listener)
        .inspect(move |_| connections.send_modify(|count| *count += 1));
    let server = Server::builder()
        .max_connection_age(Duration::from_millis(200))
        .add_service(ledger_server::LedgerServer::new(node.clone()))
        .serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    let client = Client::builder()
        .without_env()
        .registry(format!("static://ledger={address}"))
        .for_all(ChannelOptions::new().max_in_flight_per_node(LIMIT))
        .build()
        .expect("a client");
    let ledger = LedgerClient::new("ledger", &client);
    let calls = (0..8).map(|id| ledger.read(Entry { id }).timeout(Duration::from_secs(60)));
    let replies = join_all(calls.map(|call| async { call.await })).await;
    for reply in replies {
        reply.expect("no call fails for a connection's age");
    }
    let (left, most) = *node.calls.borrow();
    assert_eq!((left, most), (0, LIMIT), "over {} connections", *node.connections.borrow());
    server.abort();
}
