//! `mdns://`: nodes that tell one another by multicast, in go-micro's dialect, with nothing to install.

// `Responder` says who we are and `Browser` who the others are (two machines without IO), the driver
// has their sockets and their clock, and `packet` the bytes.

mod browser;
mod driver;
#[cfg(test)]
mod fuzz;
mod instance;
mod link;
mod outbox;
mod packet;
mod responder;
mod state;
#[cfg(test)]
mod tests;
mod text;
#[cfg(test)]
mod vectors;
mod watch;

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::OnceCell, time::sleep_until};

use self::{
    driver::Driver,
    instance::Instance,
    link::{Named, Net, OpenError, interfaces},
    responder::Standing,
};
use super::{
    BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch,
    share::share,
    url::{Url, redact_hosts},
};
use crate::Error;

/// How long answers are waited for, as in go-micro.
const WINDOW: Duration = Duration::from_millis(100);

/// How long a goodbye may take to reach all who watch, the two that repeat it included.
const SPREAD: Duration = Duration::from_millis(200);

/// Registering takes half of it.
const MIN_TTL: Duration = Duration::from_secs(1);

/// What is there where multicast is not.
const INSTEAD: &str = "name another registry in MICRO_REGISTRY or in the code: memory:// within one \
    process, static://greeter=127.0.0.1:3456 for addresses that are known, etcd://127.0.0.1:2379 \
    (feature `etcd`)";

/// The registry that needs no server: every node says itself by multicast DNS (RFC 6762) that it is
/// there, answers who asks for its service, and says when it leaves.
///
/// It speaks go-micro's dialect, so that each finds the other's nodes: the domain is `micro`, and a
/// TXT record holds metadata and endpoints.
///
/// # Interfaces
/// `mdns://` speaks on the loopback interface: services find one another on this machine, and nothing
/// leaves it. A node whose address is another's than loopback's is told of on the interface of that
/// address as well, and its process looks for nodes there. A client that is no service looks for nodes
/// on further interfaces when the URL names them, by an address or by name:
/// `mdns://192.168.1.7,[fd00::7],eth1`.
///
/// An interface that is named by its IPv4 address is spoken on by IPv4 alone (the group 224.0.0.251),
/// any other by both families, as far as it has addresses of them (ff02::fb). On loopback IPv4 alone is
/// spoken. An interface that is named must be there when the registry is first used, up or down; what
/// becomes of it later, and of its addresses, is followed within a second.
///
/// Any number of processes on a machine share the port 5353.
///
/// # Time
/// Registering takes 450 ms: three probes, 150 ms apart, find out whether another has the id. Nodes
/// are found within milliseconds of their announcement, or 100 ms after a service was first asked for.
/// A node that died is forgotten 120 s after it was last heard of, which is go-micro's TTL on the
/// wire: the `register_ttl` does not change that, since no server is there to keep it. What it sets
/// here is how often the node makes sure that nobody else has taken its id, every third of it.
///
/// # Trust
/// Whoever can send to the interface can tell of nodes, as with go-micro. A record that cannot be read
/// is one of the [`Listing`]'s malformed, up to 64 of them; other packets that make no sense are left
/// out, with a warning once a minute at most. What is kept of all that others say is bounded: 4096
/// nodes, 1 MiB for one and 32 MiB for all, and the last 128 changes. Where that is full a further
/// node takes the place of one that was heard only once, or that has not answered for 102 s; if there
/// is none it is left out, with a warning likewise.
#[derive(Debug)]
pub struct Mdns {
    name: String,
    further: Vec<Named>,
    driver: OnceCell<Arc<Driver>>,
}

impl Mdns {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        url.without_user()?;
        url.without_path()?;
        url.only_keys(&[])?;
        let mut further = Vec::new();
        // Without any host, loopback.
        for host in url.hosts.split(',').filter(|_| !url.hosts.is_empty()) {
            let Some(named) = named(host) else { continue };
            let named = named.map_err(|()| {
                let host = redact_hosts(host);
                url.error(format_args!(
                    "`{host}` is neither an address nor the name of an interface; write `mdns://` for \
                     loopback, or `mdns://192.168.1.7`, `mdns://[fd00::7]` or `mdns://eth0`, several \
                     with commas"
                ))
            })?;
            if !further.contains(&named) {
                further.push(named);
            }
        }
        Ok(share(name(&further), || Self::on(further)))
    }

    fn on(further: Vec<Named>) -> Self {
        Self { name: name(&further), further, driver: OnceCell::new() }
    }

    /// The sockets, opened and found to work at the first use.
    async fn driver(&self) -> Result<&Arc<Driver>, Error> {
        let driver = self.driver.get_or_try_init(|| self.start()).await?;
        if driver.has_ended() {
            let name = &self.name;
            return Err(Error::registry(format!(
                "{name}: the tokio runtime that it began in is gone: open it anew in the one that uses it"
            )));
        }
        Ok(driver)
    }

    async fn start(&self) -> Result<Arc<Driver>, Error> {
        let name = &self.name;
        let interfaces = interfaces()
            .map_err(|why| Error::registry(format!("{name}: {}", OpenError::NoSocket(why))))?;
        for named in &self.further {
            named.nets(&interfaces).map_err(|why| Error::config(format!("{name}: {why}")))?;
        }
        let driver = Driver::start(&self.further).map_err(|why| match why {
            OpenError::NoSocket(_) => Error::registry(format!("{name}: {why}")),
            // One that comes and goes may have gone this moment.
            OpenError::Multicast(ref net, _) if *net != Net::LOOPBACK => {
                Error::registry(format!("{name}: {why}"))
            }
            // It is no use to try again.
            OpenError::Held | OpenError::Multicast(..) => {
                Error::config(format!("{name}: {why}; {INSTEAD}"))
            }
        })?;
        // As in a container or behind a firewall.
        driver.check().await.map_err(|why| {
            Error::config(format!("{name}: multicast does not work here: {why}; {INSTEAD}"))
        })?;
        Ok(Arc::new(driver))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (&self.name, &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    fn check_service(&self, service: &str) -> Result<(), Error> {
        instance::check_service(service).map_err(|why| {
            let name = &self.name;
            Error::config(format!("{name}: there can be no service `{service}`: {why}"))
        })
    }

    async fn write(&self, node: &Node, ttl: Duration) -> Result<Lease, Error> {
        if ttl < MIN_TTL {
            return Err(self.refuse(node, &format!("a TTL of {ttl:?} is under {MIN_TTL:?}")));
        }
        let driver = self.driver().await?;
        let (instance, named) = told_on(node).map_err(|why| self.refuse(node, &why))?;
        let fail = |why: String| {
            let (name, id, service) = (&self.name, &node.id, &node.service);
            Error::registry(format!("{name}: cannot register {id} of service {service}: {why}"))
        };
        driver.follow(&named).map_err(|why| fail(why.to_string()))?;
        let interfaces = interfaces().map_err(|why| fail(why.to_string()))?;
        let mut changed = driver.changed();
        let lease = driver.act(|state, now| {
            let links = state.links_of(&instance, &interfaces);
            state.responder.register(now, node, links)
        });
        let lease = lease.map_err(fail)?;
        let pending = Pending { driver, lease: Some(lease) };
        loop {
            match driver.look(|state| state.responder.standing(lease)) {
                Standing::Announced => break,
                Standing::Refused(why) => return Err(fail(why)),
                Standing::Gone => return Err(fail("it was registered anew meanwhile".to_owned())),
                Standing::Probing => {}
            }
            let _ = changed.changed().await;
        }
        driver.flush().await;
        Ok(pending.done())
    }
}

fn name(further: &[Named]) -> String {
    let further: Vec<_> = further.iter().map(Named::to_string).collect();
    format!("mdns://{}", further.join(","))
}

/// An interface, as the URL names it; none for loopback, which there is in any case.
fn named(host: &str) -> Option<Result<Named, ()>> {
    let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = ip.parse::<IpAddr>()
        && ip.is_ipv6() == host.starts_with('[')
    {
        return (!ip.is_loopback()).then_some(Ok(Named::Address(ip, 0)));
    }
    // Of an interface's name, Linux forbids no more than these; an address that is none is no name.
    let is_name = !host.is_empty()
        && host.chars().any(char::is_alphabetic)
        && !host.contains([':', '[', ']', ' ', '%']);
    Some(if is_name { Ok(Named::Interface(host.to_owned())) } else { Err(()) })
}

/// A node as it is told of, and the interface where it is.
fn told_on(node: &Node) -> Result<(Instance, Named), String> {
    let instance = Instance::of(node)?;
    let named = Named::Address(instance.ip, instance.scope);
    named.nets(&interfaces().unwrap_or_default())?;
    Ok((instance, named))
}

/// A registration under way: given up half way, it leaves nothing behind.
struct Pending<'a> {
    driver: &'a Driver,
    lease: Option<Lease>,
}

impl Pending<'_> {
    fn done(mut self) -> Lease {
        self.lease.take().unwrap_or(Lease(0))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease {
            self.driver.act(|state, now| state.responder.deregister(now, lease));
        }
    }
}

impl Registry for Mdns {
    fn name(&self) -> &str {
        &self.name
    }

    fn hint(&self) -> Option<&str> {
        Some(match self.further[..] {
            [] => {
                "nodes of other machines are found once they are exposed (MICRO_SERVER_ADDRESS), \
                 by a client on mdns://ADDRESS, this machine's address in their network"
            }
            _ => "nodes of other machines are found once they are exposed (MICRO_SERVER_ADDRESS)",
        })
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    /// There is none to grant it: this is what a renewal is good for.
    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        told_on(node).map(drop).map_err(|why| self.refuse(node, &why))
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { self.driver().await.map(drop) }.boxed()
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        self.write(node, ttl).boxed()
    }

    fn undoes_dropped(&self) -> bool {
        true
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let driver = self.driver().await.map_err(RenewError::Failed)?;
            driver.look(|state| state.responder.renew(node, lease))
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, _: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let driver = self.driver().await?;
            driver.act(|state, now| state.responder.deregister(now, lease));
            driver.flush().await;
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            self.check_service(service)?;
            let driver = self.driver().await?;
            let since = driver.act(|state, now| {
                let since = state.browse(now, service);
                if since < now {
                    state.browser.ask(service);
                }
                since
            });
            sleep_until(since + WINDOW).await;
            Ok(driver.look(|state| {
                let (revision, entries) = state.browser.entries(service);
                Listing { revision, entries, malformed: state.browser.malformed(service) }
            }))
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            let driver = self.driver().await?;
            let since = driver.act(|state, now| {
                state.browser.ask_services();
                now
            });
            sleep_until(since + WINDOW).await;
            let mut services: Vec<String> = driver.look(|state| {
                let told = state.browser.services(since).chain(state.responder.services());
                told.map(str::to_owned).collect()
            });
            services.sort();
            services.dedup();
            Ok(services)
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.driver.get().cloned(), &self.name, service.to_owned(), after)
    }
}
