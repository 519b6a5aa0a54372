//! A registry of one record that goes away, wipes and hangs on command, and notes what it is asked.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Error, ErrorKind,
    registry::{BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers after this long.
    Up(Duration),
    /// Refuses at once.
    Down,
    /// Never answers, as when stopped.
    Silent,
    /// Writes what it is told and never answers.
    Mute,
    /// Never answers, and nothing is left of what is dropped.
    Undoing,
    ReadOnly,
}

#[derive(Debug)]
pub(super) struct Scripted(Mutex<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) mode: Mode,
    /// The record's lease and when it expires.
    record: Option<(Lease, Instant)>,
    ttl: Duration,
    leases: i64,
    under_way: usize,
    pub(super) calls: Vec<(Instant, &'static str)>,
}

impl Scripted {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            mode: Mode::Up(Duration::ZERO),
            record: None,
            ttl: Duration::ZERO,
            leases: 0,
            under_way: 0,
            calls: Vec::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn set(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    /// Whether the record stands, its lease not expired.
    pub(super) fn has_record(&self) -> bool {
        self.lock().record.is_some_and(|(_, expires)| expires > Instant::now())
    }

    /// Deletes the record behind its owner's back.
    pub(super) fn wipe(&self) {
        self.lock().record = None;
    }

    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.iter().map(|(_, call)| *call).collect()
    }

    /// One exchange: `apply` is what the registry does to its record when it takes the request.
    async fn exchange<T>(
        &self,
        call: &'static str,
        apply: impl FnOnce(&mut Inner) -> T,
    ) -> Result<T, Error> {
        let mode = {
            let mut inner = self.lock();
            inner.calls.push((Instant::now(), call));
            inner.under_way += 1;
            assert_eq!(inner.under_way, 1, "a record has one writer");
            inner.mode
        };
        let _under_way = UnderWay(self);
        match mode {
            Mode::Up(delay) => sleep(delay).await,
            Mode::Down => return Err(Error::registry("connection refused")),
            Mode::Silent | Mode::Undoing => pending().await,
            Mode::Mute => {
                apply(&mut self.lock());
                return pending().await;
            }
            Mode::ReadOnly => return Err(Error::new(ErrorKind::Unsupported, "it only reads")),
        }
        Ok(apply(&mut self.lock()))
    }
}

struct UnderWay<'a>(&'a Scripted);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl Registry for Scripted {
    fn name(&self) -> &str {
        "scripted://"
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn register<'a>(&'a self, _: &'a Node, ttl: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(self.exchange("register", move |inner| {
            inner.leases += 1;
            inner.ttl = ttl;
            let lease = Lease(inner.leases);
            inner.record = Some((lease, Instant::now() + ttl));
            lease
        }))
    }

    fn undoes_dropped(&self) -> bool {
        self.lock().mode == Mode::Undoing
    }

    fn renew<'a>(&'a self, _: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move {
            let renewal = self.exchange("renew", |inner| {
                let now = Instant::now();
                match &mut inner.record {
                    Some((held, expires)) if *held == lease && *expires > now => {
                        *expires = now + inner.ttl;
                        Ok(())
                    }
                    _ => Err(RenewError::Lost("the record is gone".to_owned())),
                }
            });
            renewal.await.unwrap_or_else(|error| Err(RenewError::Failed(error)))
        })
    }

    fn deregister<'a>(&'a self, _: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.exchange("deregister", move |inner| {
            inner.record = inner.record.filter(|(held, _)| *held != lease);
        }))
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        unreachable!("a registration reads no lists")
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        unreachable!("a registration reads no lists")
    }

    fn watch(&self, _: &str, _: u64) -> Watch {
        unreachable!("a registration watches nothing")
    }
}
