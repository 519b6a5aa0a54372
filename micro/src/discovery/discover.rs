//! Updates in tower's words.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tower::discover::Change;

use super::{Subscription, Update};
use crate::registry::Node;

/// The nodes of one service as a [`tower::discover::Discover`], by node id.
///
/// A node whose record has changed is inserted again under its id; one that was registered again
/// unchanged is not, since tower's balancers would give up a good connection for it.
#[derive(Debug)]
pub struct Discover {
    updates: Subscription,
    known: HashMap<Arc<str>, Arc<Node>>,
    changes: VecDeque<Change<Arc<str>, Arc<Node>>>,
}

impl Discover {
    pub(super) fn new(updates: Subscription) -> Self {
        Self { updates, known: HashMap::new(), changes: VecDeque::new() }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Insert(node) => self.insert(node),
            Update::Remove(id) => {
                if self.known.remove(&id).is_some() {
                    self.changes.push_back(Change::Remove(id));
                }
            }
            Update::Forget => {
                self.changes.extend(self.known.drain().map(|(id, _)| Change::Remove(id)));
            }
            Update::Reset(nodes) => {
                let mut gone = self.known.clone();
                for node in nodes {
                    gone.remove(node.id.as_str());
                    self.insert(node);
                }
                for id in gone.into_keys() {
                    self.known.remove(&id);
                    self.changes.push_back(Change::Remove(id));
                }
            }
        }
    }

    fn insert(&mut self, node: Arc<Node>) {
        match self.known.entry(node.id.as_str().into()) {
            Entry::Occupied(known) if *known.get() == node => {}
            entry => {
                let entry = entry.insert_entry(node.clone());
                self.changes.push_back(Change::Insert(entry.key().clone(), node));
            }
        }
    }
}

impl Stream for Discover {
    type Item = Result<Change<Arc<str>, Arc<Node>>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match ready!(Pin::new(&mut self.updates).poll_next(cx)) {
                Some(update) => self.apply(update),
                None => return Poll::Ready(None),
            }
        }
    }
}
