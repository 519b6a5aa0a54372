//! The two machines, the links that they speak on, and what waits to be sent there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use if_addrs::Interface;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    browser::Browser,
    instance::{Instance, is_link_local},
    link::{Link, Named, Net, PORT},
    outbox::{Outbox, Outgoing},
    packet::{self, Packet, Query},
    responder::{From, LinkId, Responder, Send},
};

/// What speaks on the loopback interface.
pub(super) const LOOPBACK: LinkId = 0;

/// What goes on.
#[derive(Debug)]
pub(super) struct State {
    pub(super) responder: Responder,
    pub(super) browser: Browser,
    pub(super) links: BTreeMap<LinkId, Open>,
    /// How many there have been.
    pub(super) opened: usize,
    /// The interfaces on which there are to be links, besides loopback, while they are up.
    pub(super) follows: Vec<Named>,
    pub(super) outbox: Outbox,
    /// Why the last packet that could not be sent could not.
    pub(super) trouble: Option<String>,
    /// The name in our question that shall come back, until it has.
    pub(super) check: Option<String>,
}

/// A link and who hears on it. Dropped, they end.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) link: Arc<Link>,
    pub(super) hearing: [AbortHandle; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hearing.iter().for_each(AbortHandle::abort);
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            responder: Responder::default(),
            browser: Browser::new(),
            links: BTreeMap::new(),
            opened: 0,
            follows: Vec::new(),
            outbox: Outbox::default(),
            trouble: None,
            check: None,
        }
    }

    /// The links are others now.
    pub(super) fn relinked(&mut self, now: Instant, interfaces: &[Interface]) {
        let Self { responder, links, .. } = self;
        responder.relink(now, |instance| links_of(links, instance, interfaces));
        self.browser.relinked(now, links.values().map(|open| open.link.net.index).collect());
    }

    /// The links on which a node is told of: that of loopback, and those of its address.
    pub(super) fn links_of(&self, instance: &Instance, interfaces: &[Interface]) -> Vec<LinkId> {
        links_of(&self.links, instance, interfaces)
    }

    /// Takes in what came to a link.
    pub(super) fn heard(&mut self, now: Instant, bytes: &[u8], link: LinkId, from: SocketAddr) {
        let Some(Open { link: heard, .. }) = self.links.get(&link) else { return };
        let index = heard.net.index;
        let Some(from) = heard.net.sender(from) else {
            // Of several networks on one wire, each has a link that hears all.
            let mut links = self.links.values().filter(|open| open.link.net.index == index);
            if links.all(|open| open.link.net.sender(from).is_none()) {
                let why = format!("a packet from {from}, which is not on the link");
                self.browser.leave_out(now, &why);
            }
            return;
        };
        match packet::read(bytes) {
            Err(why) => self.browser.leave_out(now, &format!("a packet from {from}: {why}")),
            Ok(Packet::Query(query)) => self.asked(now, query, link, from),
            Ok(Packet::Response(mut records)) => {
                packet::set_scope(&mut records, index);
                self.responder.told(now, &records, link, from.ip());
                let on_wire = || self.links.values().filter(|open| open.link.net.index == index);
                let is_near = |ip: IpAddr| on_wire().any(|open| open.link.net.is_neighbour(ip));
                let skips = |name: &str| self.responder.is_leaving(name);
                self.browser.told(now, &records, is_near, skips);
            }
        }
    }

    fn asked(&mut self, now: Instant, mut query: Query, link: LinkId, from: SocketAddr) {
        if self.check.is_some()
            && query.questions.iter().any(|q| Some(&q.name) == self.check.as_ref())
        {
            self.check = None;
        }
        // From this port asks one who hears what is sent to all, and wants no id (RFC 6762, section
        // 18.1); from any other one who does not (section 6.7), as go-micro's clients.
        let hears_all = from.port() == PORT && !query.questions.iter().any(|q| q.unicast);
        if hears_all {
            query.id = 0;
        }
        for bytes in self.responder.asked(&query, link, from.ip()) {
            if !self.outbox.has_room(&bytes) {
                return self.browser.leave_out(now, "a question: too many answers wait to be sent");
            }
            self.outbox.push(if hears_all {
                Outgoing::ToAll(Send {
                    bytes,
                    links: vec![link],
                    from: From::Shared,
                    tells: vec![],
                })
            } else {
                Outgoing::ToOne { bytes, link, to: from }
            });
        }
    }

    /// Follows a service; its nodes in this process are known at once.
    pub(super) fn browse(&mut self, now: Instant, service: &str) -> Instant {
        let is_new = !self.browser.is_browsed(service);
        let since = self.browser.browse(now, service);
        if is_new {
            for records in self.responder.announced(service) {
                self.browser.told(now, &records, |_| true, |_| false);
            }
        }
        since
    }

    /// Does what is due by now.
    pub(super) fn elapse(&mut self, now: Instant) {
        for send in self.responder.elapsed(now) {
            self.browser.told(now, &send.tells, |_| true, |_| false);
            self.outbox.push(Outgoing::ToAll(send));
        }
        self.browser.elapsed(now);
        for (name, kind) in self.browser.take_questions() {
            if let Ok(bytes) = packet::query(&name, kind) {
                let links = self.links.keys().copied().collect();
                self.outbox.push(Outgoing::ToAll(Send {
                    bytes,
                    links,
                    from: From::Own,
                    tells: vec![],
                }));
            }
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.responder.wake_at().into_iter().chain(self.browser.wake_at()).min()
    }
}

fn links_of(
    links: &BTreeMap<LinkId, Open>,
    instance: &Instance,
    interfaces: &[Interface],
) -> Vec<LinkId> {
    let named = Named::Address(instance.ip, instance.scope);
    let nets = named.nets(interfaces).unwrap_or_default();
    let is_told = |id: LinkId, net: &Net| {
        // What is link-local would be of another interface there.
        if id == LOOPBACK { !is_link_local(instance.ip) } else { nets.contains(net) }
    };
    let told = links.iter().filter(|(id, open)| is_told(**id, &open.link.net));
    told.map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::{
        super::{
            super::Node,
            outbox::MOST,
            packet::{Kind, Question},
            responder::Standing,
        },
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn answers_that_wait_are_bounded_in_bytes() {
        let mut node = Node::new("greeter", "a", "127.0.0.1:1");
        let mut rng = fastrand::Rng::with_seed(7);
        let noise = (0..25_000).map(|_| char::from(rng.u8(b'!'..b'~'))).collect();
        node.metadata.insert("x".to_owned(), noise);
        let mut state = State::new();
        let lease = state.responder.register(Instant::now(), &node, vec![0]).unwrap();
        while state.responder.standing(lease) != Standing::Announced {
            sleep_until(state.responder.wake_at().expect("it is to be announced")).await;
            state.responder.elapsed(Instant::now());
        }
        let question =
            Question { name: "greeter.micro.".to_owned(), kind: Kind::Ptr, unicast: false };
        let query = Query { id: 7, questions: vec![question], claims: Vec::new() };
        for _ in 0..1000 {
            let from = SocketAddr::from(([127, 0, 0, 1], 7));
            state.asked(Instant::now(), query.clone(), 0, from);
        }
        let waiting = state.outbox.take();
        let bytes: usize = waiting.iter().map(|outgoing| outgoing.bytes().len()).sum();
        let one = waiting[0].bytes().len();
        assert!(one > 20_000, "{one}");
        assert!(bytes <= MOST && bytes + 2 * one > MOST, "{bytes}");
    }
}
