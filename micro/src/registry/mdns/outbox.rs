//! Packets that wait to be sent, on whichever links.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    link::Link,
    responder::{From, LinkId, Send},
};

/// Bytes of answers that wait to be sent; more are not given. Each packet counts some more than what
/// is in it, for what it takes in memory.
pub(super) const MOST: usize = 4 * 1024 * 1024;
const PACKET: usize = 128;

/// One packet.
#[derive(Debug)]
pub(super) enum Outgoing {
    ToAll(Send),
    ToOne { bytes: Vec<u8>, link: LinkId, to: SocketAddr },
}

/// All that wait, first come first sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Outgoing>,
    /// What they take.
    size: usize,
    /// Packets put into it, and sent, ever.
    queued: u64,
    sent: u64,
}

impl Outbox {
    /// Whether one more answer may wait.
    pub(super) fn has_room(&self, bytes: &[u8]) -> bool {
        self.size + PACKET + bytes.len() <= MOST
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.queued += 1;
        self.size += PACKET + outgoing.bytes().len();
        self.waiting.push_back(outgoing);
    }

    /// All that wait, to be sent.
    pub(super) fn take(&mut self) -> VecDeque<Outgoing> {
        self.size = 0;
        std::mem::take(&mut self.waiting)
    }

    /// So many of those taken were sent, or tried.
    pub(super) fn sent(&mut self, packets: usize) {
        self.sent += packets as u64;
    }

    /// How many were ever put into it.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Whether that many were sent.
    pub(super) fn has_sent(&self, queued: u64) -> bool {
        self.sent >= queued
    }
}

impl Outgoing {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::ToAll(Send { bytes, .. }) | Self::ToOne { bytes, .. } => bytes,
        }
    }

    /// A link that is closed by now gets nothing.
    pub(super) async fn send(&self, links: &BTreeMap<LinkId, Arc<Link>>) -> io::Result<()> {
        match self {
            Self::ToOne { bytes, link, to } => match links.get(link) {
                Some(link) => link.send(bytes, From::Shared, Some(*to)).await,
                None => Ok(()),
            },
            Self::ToAll(Send { bytes, links: to, from, .. }) => {
                let mut outcome = Ok(());
                for link in to.iter().filter_map(|id| links.get(id)) {
                    // One link that is down keeps nothing from the others.
                    outcome = link.send(bytes, *from, None).await.and(outcome);
                }
                outcome
            }
        }
    }
}
