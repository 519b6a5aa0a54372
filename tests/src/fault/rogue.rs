//! A node that answers calls and breaks the manners of HTTP/2: an `h2` server of our own, since no
//! honest one can be made to.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{
    Reason,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::Journal;
use crate::proto::ledger::{Entry, Receipt};

/// What a rogue node does beside answering.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Sends GOAWAY in good order at each tenth call of a connection; those under way it answers.
    GoesAway,
    /// Resets each second call of a connection, for this reason. It writes those down that it does not
    /// say it refused: a handler may have seen them.
    Resets(Reason),
    /// Resets each second call of a connection once its answer's headers are out.
    ResetsAmidAnswer,
    /// Ends each second call of a connection amid its answer, as a proxy does that has lost its node.
    EndsWithoutStatus,
}

/// A rogue node. Dropped, it closes its connections.
#[derive(Debug)]
pub struct Rogue {
    /// Where it listens.
    pub address: String,
    offences: Arc<AtomicUsize>,
    _listening: JoinSet<()>,
}

impl Rogue {
    /// The id of every rogue node.
    pub const ID: &'static str = "rogue";

    /// Listens on a free port of loopback, and writes its journal into this folder.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start(rule: Rule, journals: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let journal = Journal::open(journals, Self::ID).expect("the journal can be opened");
        let journal = Arc::new(journal);
        let offences = Arc::new(AtomicUsize::new(0));
        let mut listening = JoinSet::new();
        let counted = offences.clone();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, rule, journal.clone(), counted.clone()));
            }
        });
        Self { address, offences, _listening: listening }
    }

    /// How often it has broken the manners: GOAWAYs, resets, and ends without a status.
    pub fn offences(&self) -> usize {
        self.offences.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    rule: Rule,
    journal: Arc<Journal>,
    offences: Arc<AtomicUsize>,
) -> Result<(), h2::Error> {
    let mut connection = server::handshake(stream).await?;
    let mut calls = 0;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        if request.uri().path().starts_with("/grpc.health.v1.Health/") {
            // It has no such method, and so is taken to be well.
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.header("grpc-status", "12").body(()).expect("a response");
            respond.send_response(head, true)?;
            continue;
        }
        calls += 1;
        let is_second = calls % 2 == 0;
        let is_offence = match rule {
            Rule::GoesAway => calls == 10,
            Rule::Resets(_) | Rule::ResetsAmidAnswer | Rule::EndsWithoutStatus => is_second,
        };
        offences.fetch_add(usize::from(is_offence), Ordering::Relaxed);
        match rule {
            Rule::GoesAway if calls == 10 => connection.graceful_shutdown(),
            Rule::Resets(Reason::REFUSED_STREAM) if is_second => {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            _ => {}
        }
        tokio::spawn(answer(request, respond, is_second.then_some(rule), journal.clone()));
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    rule: Option<Rule>,
    journal: Arc<Journal>,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut frame = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        frame.extend_from_slice(&data);
    }
    frame.advance(PREFIX);
    let id = Entry::decode(frame).expect("the callers send entries").id;

    journal.begin(id);
    sleep(Duration::from_millis(2)).await;
    journal.end(id);
    if let Some(Rule::Resets(reason)) = rule {
        respond.send_reset(reason);
        return Ok(());
    }
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond.send_response(head.body(()).expect("a response"), false)?;
    if let Some(Rule::ResetsAmidAnswer) = rule {
        // Apart, so that the headers are out.
        sleep(Duration::from_millis(1)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if let Some(Rule::EndsWithoutStatus) = rule {
        return stream.send_data(Bytes::new(), true);
    }
    let receipt = Receipt { node: Rogue::ID.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX + receipt.len());
    frame.put_u8(0);
    frame.put_u32(receipt.len() as u32);
    frame.put_slice(&receipt);
    stream.send_data(frame.freeze(), false)?;
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    stream.send_trailers(trailers)
}

/// Before each message of gRPC's: whether it is compressed, and its length.
const PREFIX: usize = 5;
