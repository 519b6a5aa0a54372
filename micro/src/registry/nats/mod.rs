//! `nats://`: nodes that tell one another over NATS, as go-micro's do, with nothing stored anywhere.

// `Bus` is the machine without IO: what is known, until when, and what is to be said. The driver has the
// connection and the clock, `connection` the client, and `message` the bytes.

mod bus;
mod connection;
mod driver;
#[cfg(test)]
mod fuzz;
mod known;
mod message;
mod options;
mod outstanding;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use self::{
    bus::{MIN_TTL, Say},
    driver::Driver,
    options::Options,
};
use super::{
    BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, format::gomicro, share::share,
    url::Url,
};
use crate::Error;

/// How long answers are waited for, as in go-micro.
const WINDOW: Duration = Duration::from_millis(100);

/// How long a goodbye may take to all who watch, over servers between.
const SPREAD: Duration = Duration::from_millis(500);

/// A registry over NATS, as go-micro has it: nothing is stored. Every node says on the subject
/// `micro.nats.watch` that it is there, at each renewal, and when it leaves; and answers who asks for its
/// service on `micro.nats.query`.
///
/// # Reads
/// A read asks and takes what is answered within 100 ms, which is go-micro's time; later answers are
/// told to the watch. Where the question itself does not come back from the server within 850 ms,
/// connecting included, the read fails: nobody's silence is taken for the absence of nodes before the
/// bus is known to carry questions.
///
/// # Time
/// No server keeps a TTL: whoever listens forgets a node that has been silent for its TTL, once it was
/// asked for after 80% of it and did not answer either, a question that is known to have been carried.
/// Our nodes say their TTL in a header; one that says none is go-micro's, says every 30 s that it is
/// there, and is believed in for 90 s. Who is cut off from the bus forgets nobody, and gives all another
/// TTL when it is back. A node is told and found within milliseconds.
///
/// # Connection
/// One for all that a process does with a URL, made at the first exchange and anew at the next after it
/// broke. A PING goes out after 3 s in which nothing came; with the third that goes unanswered, and at
/// any exchange that does, the connection is given up, and the watches on it end.
///
/// # Trust
/// Whoever can publish on the two subjects can tell of nodes, and delete them: permissions of NATS are
/// what keeps others off. A record that cannot be read is one of the [`Listing`]'s malformed, up to 64
/// of them. What is kept of all that others say is bounded: 16 384 nodes of the services that are looked
/// for, 1 MiB for one and 64 MiB for all, and the last 1024 changes, or 16 MiB of them; what has no room
/// is left out, with a warning once a minute at most.
#[derive(Debug)]
pub struct Nats {
    driver: Arc<Driver>,
}

impl Nats {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || Self { driver: Arc::new(Driver::new(options)) }))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// Asks, and waits for answers. Returns when it asked.
    async fn ask(&self, what: &str, question: Say) -> Result<Instant, Error> {
        let asked = Instant::now();
        let link = self.driver.exchange(what, question).await?;
        sleep_until(Instant::now() + WINDOW).await;
        self.driver.look(|state| match state.link() {
            Some(now) if now == link => Ok(asked),
            _ => {
                let (name, why) = (self.name(), state.why());
                Err(Error::registry(format!("{name}: cannot {what}: {why}")))
            }
        })
    }
}

impl Registry for Nats {
    fn name(&self) -> &str {
        &self.driver.options().name
    }

    /// Unless every server is on this machine.
    fn is_shared(&self) -> bool {
        !self.driver.options().are_local()
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        for (what, name) in [("service", &node.service), ("node's id", &node.id)] {
            if name.is_empty() {
                return Err(self.refuse(node, &format!("the {what} is empty")));
            }
        }
        gomicro::encode(node).map(drop).map_err(|why| self.refuse(node, &why))
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            if ttl < MIN_TTL {
                let why = format!("a TTL of {ttl:?} is under the least, {MIN_TTL:?}");
                return Err(self.refuse(node, &why));
            }
            self.validate(node)?;
            let what = format!("register {} of service {}", node.id, node.service);
            self.driver.exchange(&what, Say::Create(Arc::new(node.clone()), ttl)).await?;
            Ok(self.driver.act(|bus, now| bus.register(now, node, ttl)))
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let ttl = self.driver.act(|bus, now| {
                bus.standing(now, node, lease)?;
                Ok(bus.ttl(node))
            })?;
            let what = format!("renew {} of service {}", node.id, node.service);
            let create = Say::Create(Arc::new(node.clone()), ttl);
            self.driver.exchange(&what, create).await.map_err(RenewError::Failed)?;
            self.driver.act(|bus, now| bus.renewed(now, node, lease))
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            if !self.driver.act(|bus, _| bus.deregister(node, lease)) {
                return Ok(());
            }
            let what = format!("deregister {} of service {}", node.id, node.service);
            self.driver.exchange(&what, Say::Delete(Arc::new(node.clone()))).await.map(drop)
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            if service.is_empty() {
                let name = self.name();
                return Err(Error::config(format!("{name}: a service's name is empty")));
            }
            self.driver.act(|bus, now| bus.browse(now, service));
            let what = format!("read service {service}");
            self.ask(&what, Say::Get(service.to_owned())).await?;
            Ok(self.driver.look(|state| {
                let (revision, entries) = state.bus.entries(service);
                Listing { revision, entries, malformed: state.bus.malformed(service) }
            }))
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            let asked = self.ask("list services", Say::List).await?;
            let mut services: Vec<String> =
                self.driver.look(|state| state.bus.services(asked).map(str::to_owned).collect());
            services.sort();
            services.dedup();
            Ok(services)
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.driver.clone(), service.to_owned(), after)
    }
}
