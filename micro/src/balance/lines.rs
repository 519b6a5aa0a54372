//! Calls that wait, each in the line of those that may go to the same nodes. A line hears of the nodes
//! that concern it and of no others; of room on a node only the first in each line does, and not all.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use super::{Request, request::Method};
use crate::{
    registry::Node,
    sync::{
        AtomicUsize, Mutex, MutexGuard, Notified, Notify, OwnedSemaphorePermit, Semaphore, fence,
    },
};

/// The nodes that a call may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought<T> {
    Any,
    /// The one of this id, which the call is pinned to.
    Node(T),
    /// Those whose record has the method at this path.
    Serving(T),
}

impl Sought<&str> {
    pub(super) fn to_owned(self) -> Sought<String> {
        match self {
            Self::Any => Sought::Any,
            Self::Node(id) => Sought::Node(id.to_owned()),
            Self::Serving(method) => Sought::Serving(method.to_owned()),
        }
    }
}

/// The nodes that calls wait for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Whether one waits for whichever it is.
    pub(super) any: bool,
    /// Those of these ids.
    pub(super) nodes: HashSet<Arc<str>>,
    /// Those that serve one of these methods.
    pub(super) methods: HashSet<Arc<str>>,
}

impl Wanted {
    pub(super) fn is_none(&self) -> bool {
        !self.any && self.nodes.is_empty() && self.methods.is_empty()
    }

    pub(super) fn has(&self, node: &Node) -> bool {
        self.any
            || self.nodes.contains(node.id.as_str())
            || self.methods.iter().any(|method| Method::of(method).is_in(node))
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether a call may only go to nodes that have its method.
    serving: bool,
    /// Whether nodes are limited: whoever waits for room then does so in turn.
    has_turns: bool,
    any: Arc<Line>,
    /// Woken when a call has ended, where nodes are limited: the first of each line, in the order they
    /// came, so that no line has all the room.
    freed: Notify,
    others: Mutex<Others>,
    /// How many of these there are: what calls read, most of which find none.
    len: AtomicUsize,
    /// How often it has changed who waits for a node.
    changes: AtomicUsize,
}

/// By the id of a node, or by the path of a method.
type ByKey = HashMap<Arc<str>, Arc<Line>>;

#[derive(Debug, Default)]
struct Others {
    nodes: ByKey,
    methods: ByKey,
}

impl Others {
    fn of<'a>(&mut self, sought: Sought<&'a str>) -> Option<(&'a str, &mut ByKey)> {
        match sought {
            Sought::Any => None,
            Sought::Node(id) => Some((id, &mut self.nodes)),
            Sought::Serving(method) => Some((method, &mut self.methods)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Line> {
        self.nodes.values().chain(self.methods.values()).map(|line| &**line)
    }
}

#[derive(Debug)]
struct Line {
    /// Woken, in the order they came, when there is something else to pick from.
    changed: Notify,
    /// Whoever waits for room stands in line for this: the first alone is woken.
    turn: Arc<Semaphore>,
    /// How many wait for a node.
    waiting: AtomicUsize,
}

impl Default for Line {
    fn default() -> Self {
        let (changed, turn) = (Notify::new(), Arc::new(Semaphore::new(1)));
        Self { changed, turn, waiting: AtomicUsize::new(0) }
    }
}

impl Line {
    fn has_turn_taken(&self) -> bool {
        self.turn.available_permits() == 0
    }
}

impl Lines {
    /// None yet. `serving`: whether calls may only go to nodes that have their method; `has_turns`:
    /// whether nodes are limited.
    pub(super) fn new(serving: bool, has_turns: bool) -> Arc<Self> {
        Arc::new(Self {
            serving,
            has_turns,
            any: Arc::default(),
            freed: Notify::new(),
            others: Mutex::default(),
            len: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
        })
    }

    /// What a call may go to.
    pub(super) fn sought<'a>(&self, request: &Request<'a>) -> Sought<&'a str> {
        match request.node {
            Some(id) => Sought::Node(id),
            None if self.serving => Sought::Serving(request.method),
            None => Sought::Any,
        }
    }

    /// A place in the call's line.
    pub(super) fn seat<'a>(&'a self, request: &Request<'a>) -> Seat<'a> {
        let sought = self.sought(request);
        let line = if sought == Sought::Any { self.any.clone() } else { self.other(sought) };
        // Before the call looks for a node: who changes something after that look finds the line.
        fence(SeqCst);
        Seat { lines: self, sought, line }
    }

    /// Whether others wait in line for room where the call may go.
    pub(super) fn has_line(&self, request: &Request<'_>) -> bool {
        let sought = self.sought(request);
        if !self.has_turns {
            return false;
        }
        if sought == Sought::Any {
            return self.any.has_turn_taken();
        }
        if self.len.load(Relaxed) == 0 {
            return false;
        }
        let mut others = self.lock();
        let line = others.of(sought).and_then(|(key, lines)| lines.get(key));
        line.is_some_and(|line| line.has_turn_taken())
    }

    /// Ends when there is something else to pick from, whichever it is.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.any.changed.notified()
    }

    /// Calls that may go anywhere are to look again.
    pub(super) fn wake_any(&self) {
        self.any.changed.notify_waiters();
    }

    /// Those are that may only go to this node, or to one that has a method as it does.
    pub(super) fn wake_for(&self, node: &Node) {
        let Some(others) = self.others() else {
            return;
        };
        if let Some(line) = others.nodes.get(node.id.as_str()) {
            line.changed.notify_waiters();
        }
        for (method, line) in &others.methods {
            if Method::of(method).is_in(node) {
                line.changed.notify_waiters();
            }
        }
    }

    /// All are that may not go anywhere.
    pub(super) fn wake_others(&self) {
        if let Some(others) = self.others() {
            others.all().for_each(|line| line.changed.notify_waiters());
        }
    }

    /// A call has ended, and no longer counts at its node.
    pub(super) fn freed(&self) {
        if self.has_turns {
            self.freed.notify_waiters();
        }
    }

    /// How often it has changed which nodes are [wanted](Self::wanted).
    pub(super) fn changes(&self) -> usize {
        self.changes.load(SeqCst)
    }

    /// The nodes that calls wait for.
    pub(super) fn wanted(&self) -> Wanted {
        let waited_for = |line: &Line| line.waiting.load(SeqCst) > 0;
        let keys = |lines: &ByKey| {
            let waited_for = lines.iter().filter(|(_, line)| waited_for(line));
            waited_for.map(|(key, _)| key.clone()).collect()
        };
        let others = self.lock();
        let (nodes, methods) = (keys(&others.nodes), keys(&others.methods));
        Wanted { any: waited_for(&self.any), nodes, methods }
    }

    fn other(&self, sought: Sought<&str>) -> Arc<Line> {
        let mut others = self.lock();
        let (key, lines) = others.of(sought).expect("it may not go anywhere");
        let line = lines.entry(key.into()).or_default().clone();
        self.set_len(&others);
        line
    }

    /// Unless there are none, without a lock.
    fn others(&self) -> Option<MutexGuard<'_, Others>> {
        fence(SeqCst);
        (self.len.load(Relaxed) > 0).then(|| self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_len(&self, others: &Others) {
        self.len.store(others.nodes.len() + others.methods.len(), Relaxed);
    }
}

/// A call's place in its line; the line is gone with the last.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    lines: &'a Lines,
    sought: Sought<&'a str>,
    line: Arc<Line>,
}

impl Seat<'_> {
    /// Ends when there is something else to pick from.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.line.changed.notified()
    }

    /// Ends when a call has ended.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.lines.freed.notified()
    }

    /// Whether there is a line for room, and the call has to go to its end.
    pub(super) fn is_behind(&self) -> bool {
        self.lines.has_turns && self.line.has_turn_taken()
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        self.line.turn.clone().acquire_owned().await.expect("it is never closed")
    }

    /// The call waits for a node from now on, for as long as the guard lives; `told` hears if no
    /// other does.
    pub(super) fn wait(&self, told: &Notify) -> Waiting<'_> {
        if self.line.waiting.fetch_add(1, SeqCst) == 0 {
            self.lines.changes.fetch_add(1, SeqCst);
            told.notify_one();
        }
        Waiting { lines: self.lines, line: &self.line }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.sought == Sought::Any {
            return;
        }
        let mut others = self.lines.lock();
        // Its own is given up under the lock, and none is made but there: the last sees that it is.
        self.line = self.lines.any.clone();
        if let Some((key, lines)) = others.of(self.sought)
            && lines.get(key).is_some_and(|line| Arc::strong_count(line) == 1)
        {
            lines.remove(key);
            self.lines.set_len(&others);
        }
    }
}

/// A call that waits for a node.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    lines: &'a Lines,
    line: &'a Line,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.line.waiting.fetch_sub(1, SeqCst) == 1 {
            self.lines.changes.fetch_add(1, SeqCst);
        }
    }
}
