//! The endpoints that are ready, in chunks that a copy shares with the set it was made of: a change
//! copies those that it touches, and the list of them.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{EndpointId, snapshot::Endpoint};

/// A change copies one to three chunks and the list of chunks: at 10 000 nodes some hundreds of
/// pointers, not 10 000.
const CHUNK: usize = 128;

/// Where each endpoint is.
pub(super) type Places = HashMap<EndpointId, usize>;

/// An endpoint in its place.
#[derive(Debug)]
pub(super) struct Slot<C> {
    pub(super) endpoint: Arc<Endpoint<C>>,
    /// Its share of the calls, for the rule that goes by weights.
    pub(super) weight: u32,
}

impl<C> Clone for Slot<C> {
    fn clone(&self) -> Self {
        Self { endpoint: self.endpoint.clone(), weight: self.weight }
    }
}

/// Some of them, and the sum of their weights.
#[derive(Debug)]
pub(super) struct Chunk<C> {
    slots: Vec<Slot<C>>,
    weight: u64,
}

impl<C> Chunk<C> {
    pub(super) fn slots(&self) -> &[Slot<C>] {
        &self.slots
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }
}

impl<C> Default for Chunk<C> {
    fn default() -> Self {
        Self { slots: Vec::new(), weight: 0 }
    }
}

impl<C> Clone for Chunk<C> {
    fn clone(&self) -> Self {
        Self { slots: self.slots.clone(), weight: self.weight }
    }
}

/// Endpoints in places from 0: those of the own zone first, for the rule that asks which they are.
#[derive(Debug)]
pub(super) struct Set<C> {
    chunks: Vec<Arc<Chunk<C>>>,
    len: usize,
    own: usize,
}

impl<C> Clone for Set<C> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len, own: self.own }
    }
}

impl<C> Set<C> {
    pub(super) fn empty() -> Self {
        Self { chunks: Vec::new(), len: 0, own: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The places of all.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.len
    }

    /// The places of the own zone.
    pub(super) fn own(&self) -> Range<usize> {
        0..self.own
    }

    /// The places of the others.
    pub(super) fn others(&self) -> Range<usize> {
        self.own..self.len
    }

    pub(super) fn get(&self, place: usize) -> &Arc<Endpoint<C>> {
        &self.slot(place).endpoint
    }

    /// The endpoint in a place that may be past the end.
    pub(super) fn try_get(&self, place: usize) -> Option<&Arc<Endpoint<C>>> {
        (place < self.len).then(|| self.get(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint<C>>> {
        self.chunks.iter().flat_map(|chunk| chunk.slots()).map(|slot| &slot.endpoint)
    }

    /// The chunks, in the order of the places.
    pub(super) fn chunks(&self) -> &[Arc<Chunk<C>>] {
        &self.chunks
    }

    fn slot(&self, place: usize) -> &Slot<C> {
        &self.chunks[place / CHUNK].slots[place % CHUNK]
    }

    fn push(&mut self, slot: Slot<C>) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        let last = self.chunks.last_mut().expect("there is one with a place");
        let last = Arc::make_mut(last);
        last.weight += u64::from(slot.weight);
        last.slots.push(slot);
        self.len += 1;
    }

    /// Takes the last one out.
    fn pop(&mut self) -> Option<Slot<C>> {
        let chunk = Arc::make_mut(self.chunks.last_mut()?);
        let slot = chunk.slots.pop()?;
        chunk.weight -= u64::from(slot.weight);
        if chunk.slots.is_empty() {
            self.chunks.pop();
        }
        self.len -= 1;
        Some(slot)
    }

    /// Whether what is in that place is of the own zone.
    pub(super) fn is_own(&self, place: usize) -> bool {
        place < self.own
    }

    /// Puts another endpoint of the same zone in that place.
    pub(super) fn replace(&mut self, place: usize, slot: Slot<C>) {
        let chunk = Arc::make_mut(&mut self.chunks[place / CHUNK]);
        chunk.weight += u64::from(slot.weight);
        let before = std::mem::replace(&mut chunk.slots[place % CHUNK], slot);
        chunk.weight -= u64::from(before.weight);
    }

    /// Adds one, and keeps `places` true.
    pub(super) fn insert(&mut self, slot: Slot<C>, is_own: bool, places: &mut Places) {
        if !is_own || self.own == self.len {
            places.insert(slot.endpoint.id, self.len);
            self.push(slot);
        } else {
            let other = self.slot(self.own).clone();
            places.insert(other.endpoint.id, self.len);
            self.push(other);
            places.insert(slot.endpoint.id, self.own);
            self.replace(self.own, slot);
        }
        self.own += usize::from(is_own);
    }

    /// Takes one out and keeps `places` true: the last one takes its place, of the own zone if it
    /// was of that.
    pub(super) fn remove(&mut self, place: usize, places: &mut Places) {
        let mut hole = place;
        if self.is_own(place) {
            self.own -= 1;
            if hole != self.own {
                let last = self.slot(self.own).clone();
                places.insert(last.endpoint.id, hole);
                self.replace(hole, last);
            }
            hole = self.own;
        }
        let last = self.pop().expect("there is one in that place");
        if hole < self.len {
            places.insert(last.endpoint.id, hole);
            self.replace(hole, last);
        }
    }
}
