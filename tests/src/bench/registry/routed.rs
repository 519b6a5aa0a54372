//! Callers that follow what is written into a registry: from the moment that a node is written to the
//! first call that the node answers, and from the moment that it is removed to the last call that goes
//! there, each beside what the registry's own client hears.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use micro::Client;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{SERVICE, host::Host, own::Own, server::Server};
use crate::{
    bench::measure::now,
    proto::echo::{EchoClient, SayRequest},
};

const CALLERS: usize = 4;

/// When so many calls in a row went to the other node, though each takes either, this one is called no
/// more.
const ELSEWHERE: usize = 64;

/// Longer than any registry takes.
const SOON: Duration = Duration::from_secs(10);

/// The calls to the node that is watched just now.
#[derive(Debug, Default)]
struct Seen {
    id: String,
    /// When the first was answered.
    first: Option<Duration>,
    /// When the last was begun.
    last: Option<Duration>,
    /// How many went elsewhere since.
    elsewhere: usize,
}

impl Seen {
    fn note(&mut self, node: &str, begin: Duration) {
        if node == self.id {
            self.first.get_or_insert_with(now);
            self.last = self.last.max(Some(begin));
            self.elsewhere = 0;
        } else {
            self.elsewhere += 1;
        }
    }
}

async fn call(echo: EchoClient, seen: Arc<Mutex<Seen>>) {
    loop {
        let begin = now();
        let reply = echo.say(SayRequest::default()).await.expect("no call fails").into_inner();
        seen.lock().expect("no caller panics").note(&reply.node, begin);
        sleep(Duration::from_millis(1)).await;
    }
}

/// What each round took, in milliseconds from the write's begin on. What is before that is negative.
#[derive(Debug, Default)]
pub struct Times {
    /// To what the registry's own client hears of a node that comes.
    pub own_came: Vec<f64>,
    /// To the first call.
    pub first: Vec<f64>,
    /// To what it hears of one that goes.
    pub own_went: Vec<f64>,
    /// To the last call's begin.
    pub last: Vec<f64>,
}

fn ms(from: Duration, to: Duration) -> f64 {
    (to.as_secs_f64() - from.as_secs_f64()) * 1e3
}

/// One registry under test, with a node that stays and a client.
#[derive(Debug)]
pub struct Routed {
    server: Server,
    host: Host,
    own: Own,
    echo: EchoClient,
    seen: Arc<Mutex<Seen>>,
    times: Times,
    rng: Rng,
}

impl Routed {
    /// A node that stays, and the first call to it.
    ///
    /// # Errors
    /// When it is not reached.
    pub async fn start(mut server: Server) -> Result<Self, Box<dyn Error>> {
        // Where nodes do not register, they only serve.
        let url = server.url();
        let write_to = if server.takes_registrations() { &url } else { "memory://unwritten" };
        let mut host = Host::start(write_to)?;
        let address = host.serve("stays", &server.place(0)).await?;
        written(&mut server, &mut host, "stays", Some(&address)).await?;
        let client = Client::builder().without_env().registry(&url).build()?;
        let echo = EchoClient::new(SERVICE, &client);
        echo.say(SayRequest::default()).timeout(SOON).await?;
        let own = Own::listen(&server).await;
        let (seen, times) = (Arc::default(), Times::default());
        Ok(Self { server, host, own, echo, seen, times, rng: Rng::with_seed(1) })
    }

    /// A node comes and goes.
    ///
    /// # Errors
    /// When nobody calls it.
    pub async fn round(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let id = format!("n{number}");
        *self.seen() = Seen { id: id.clone(), ..Seen::default() };
        let mut callers: JoinSet<()> =
            (0..CALLERS).map(|_| call(self.echo.clone(), self.seen.clone())).collect();
        let place = self.server.place(number + 1);
        let address = self.host.serve(&id, &place).await?;

        self.at_some_moment().await;
        let came = written(&mut self.server, &mut self.host, &id, Some(&address)).await?;
        let heard = timeout(SOON, self.own.hears(&id, &address, true)).await?;
        let first = timeout(SOON, async {
            loop {
                if let Some(first) = self.seen().first {
                    break first;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let first = first.await.map_err(|_| format!("{} is never called", self.server.name()))?;
        self.times.own_came.push(ms(came, heard));
        self.times.first.push(ms(came, first));

        self.at_some_moment().await;
        let went = written(&mut self.server, &mut self.host, &id, None).await?;
        let heard = timeout(SOON, self.own.hears(&id, &address, false)).await?;
        self.seen().elsewhere = 0;
        let last = timeout(SOON, async {
            loop {
                let Seen { last, elsewhere, .. } = *self.seen();
                if elsewhere >= ELSEWHERE {
                    break last.unwrap_or_default();
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let last = last.await.map_err(|_| format!("{} is called on", self.server.name()))?;
        self.times.own_went.push(ms(went, heard));
        self.times.last.push(ms(went, last));

        if let Some(ended) = callers.try_join_next() {
            ended?;
        }
        callers.shutdown().await;
        self.host.stop(&id).await
    }

    /// Where something is looked at again and again: else all would be written just after a look of
    /// ours, which is what ended the round before.
    async fn at_some_moment(&mut self) {
        if let Some(every) = self.looked_at_every() {
            sleep(every.mul_f64(self.rng.f64())).await;
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no caller panics")
    }

    /// As the table names the registry.
    pub fn name(&self) -> &'static str {
        self.server.name()
    }

    /// As [`Server::looked_at_every`].
    pub fn looked_at_every(&self) -> Option<Duration> {
        self.server.looked_at_every()
    }

    /// What the rounds took.
    pub fn times(&self) -> &Times {
        &self.times
    }
}

/// Writes the node at this address, or removes it, and tells when that began.
async fn written(
    server: &mut Server,
    host: &mut Host,
    id: &str,
    address: Option<&str>,
) -> Result<Duration, Box<dyn Error>> {
    match (server.takes_registrations(), address) {
        (true, Some(_)) => host.register(id).await,
        (true, None) => host.deregister(id).await,
        (false, Some(address)) => Ok(server.put(id, address).await),
        (false, None) => Ok(server.remove(id).await),
    }
}

/// From a client without connections to its first answer, so often.
///
/// # Errors
/// When a call fails.
pub async fn connects(times: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut host = Host::start("memory://connects")?;
    let url = format!("static://{SERVICE}={}", host.serve("connects", "127.0.0.1:0").await?);
    let mut took = Vec::new();
    for _ in 0..times {
        let client = Client::builder().without_env().registry(&url).build()?;
        let begin = now();
        EchoClient::new(SERVICE, &client).say(SayRequest::default()).await?;
        took.push(now() - begin);
    }
    Ok(took)
}
