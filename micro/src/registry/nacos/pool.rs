//! The clients of a process: one, and one more for each further node of a service that it has.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use nacos_sdk::api::naming::ServiceInstance;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    EXCHANGE,
    client::Client,
    clients::Clients,
    connection::{Connection, until_done},
    failure::Failure,
    options::Options,
    record::Record,
    server::answering,
};

/// The bound of making one. Its caller waits no longer than for any exchange.
const MAKING: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    clients: Mutex<Clients<Client>>,
    made: Mutex<Made>,
    /// Held while one is made: the next may do with it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Made {
    /// How often one was to be made.
    attempts: u64,
    /// What came of the last attempt.
    last: Result<(), String>,
}

impl Pool {
    pub(super) fn new(options: Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                clients: Mutex::new(Clients::new()),
                made: Mutex::new(Made { attempts: 0, last: Ok(()) }),
                making: tokio::sync::Mutex::default(),
            }),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// A client to ask.
    ///
    /// # Errors
    /// Why none can be made, in words.
    pub(super) async fn any(&self, deadline: Instant) -> Result<Arc<Client>, String> {
        self.pick(|_| true, deadline).await
    }

    /// Places for these records, in one client.
    ///
    /// # Errors
    /// As [`any`](Self::any).
    pub(super) async fn place<'a>(
        &'a self,
        records: &'a [Record],
        deadline: Instant,
    ) -> Result<Placed<'a>, String> {
        let client = self.pick(|client| client.reserve(records), deadline).await?;
        Ok(self.placed(client, records))
    }

    /// Whether these records can be written anew in the client where they are already: not if it was
    /// given up, nor if it has another address there, since it would have both.
    pub(super) fn has_places(
        &self,
        client: &Arc<Client>,
        records: &[Record],
        deadline: Instant,
    ) -> bool {
        let is_it = |it: &Client| std::ptr::eq(it, Arc::as_ptr(client));
        let found = self.clients().find(is_it, Instant::now(), deadline);
        found.is_some_and(|client| client.has(records))
    }

    /// The places that these records have already.
    pub(super) fn placed<'a>(&'a self, client: Arc<Client>, records: &'a [Record]) -> Placed<'a> {
        Placed { pool: self, client, records, is_kept: false }
    }

    async fn pick(
        &self,
        is_fit: impl Fn(&Client) -> bool,
        deadline: Instant,
    ) -> Result<Arc<Client>, String> {
        loop {
            let attempts = self.shared.made().attempts;
            let now = Instant::now();
            let paused_until = {
                let clients = self.clients();
                if let Some(client) = clients.find(&is_fit, now, deadline) {
                    return Ok(client);
                }
                clients.paused_until(now)
            };
            if let Some(until) = paused_until {
                if until >= deadline {
                    let pause = (until - now).as_secs() + 1;
                    return Err(format!("no connection lasts, the next is made within {pause} s"));
                }
                sleep_until(until).await;
                continue;
            }
            // In a task of its own: what takes longer than its first caller waits is there for the next.
            let making = tokio::spawn(make(self.shared.clone(), attempts));
            match timeout_at(deadline, making).await {
                Ok(Ok(made)) => made?,
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no answer in time".to_owned()),
            }
        }
    }

    /// Whether another client may be made before the deadline.
    pub(super) fn may_make(&self, deadline: Instant) -> bool {
        self.clients().paused_until(Instant::now()).is_none_or(|until| until < deadline)
    }

    /// What a client failed with; if it is of no use, it is given up and left to those who have it.
    pub(super) fn failed(&self, client: &Arc<Client>, failure: &Failure) -> String {
        if matches!(failure, Failure::Broken(_)) {
            self.clients().give_up(client, Instant::now());
        }
        failure.to_string()
    }

    /// Takes records back that a client has: now, or else as soon as it can.
    ///
    /// # Errors
    /// Why not now, in words.
    pub(super) async fn take_back(
        &self,
        client: &Arc<Client>,
        records: &[Record],
        deadline: Instant,
    ) -> Result<(), String> {
        let mut answer = Ok(());
        for (index, record) in records.iter().enumerate() {
            let Err(failure) = client.deregister(&record.service, deadline).await else { continue };
            answer = answer.and(Err(self.failed(client, &failure)));
            if !failure.is_refusal() {
                self.abandon(client, &records[index..]);
                break;
            }
            // Nothing would come of asking again, and the client is as good as any: one more for each
            // refusal would be one more connection for each.
            client.free(std::slice::from_ref(record));
        }
        answer
    }

    /// Takes records back that a client has, however long it takes. What another client has at their
    /// addresses stays.
    pub(super) fn abandon(&self, client: &Client, records: &[Record]) {
        client.abandon(records, |service, address| {
            let shared = Arc::downgrade(&self.shared);
            async move {
                until_done(|deadline| write_anew(&shared, &service, &address, deadline)).await;
            }
        });
    }

    fn clients(&self) -> MutexGuard<'_, Clients<Client>> {
        self.shared.clients()
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes anew what a client keeps of this service at this address, if one does.
async fn write_anew(
    shared: &Weak<Shared>,
    service: &str,
    address: &ServiceInstance,
    deadline: Instant,
) -> Result<(), Failure> {
    let keeping = shared.upgrade().and_then(|shared| {
        let clients = shared.clients();
        clients.any(|client| client.keeps(service, address))
    });
    let Some(client) = keeping else { return Ok(()) };
    client.write_anew(service, address, deadline).await
}

/// Makes a client, unless that was tried since there were so many attempts: the answer is theirs then,
/// so that those who wait do not queue for their own.
async fn make(shared: Arc<Shared>, attempts: u64) -> Result<(), String> {
    let _turn = shared.making.lock().await;
    {
        let made = shared.made();
        if made.attempts > attempts {
            return made.last.clone();
        }
    }
    let made = add_one(&shared).await;
    *shared.made() = Made { attempts: attempts + 1, last: made.clone() };
    made
}

/// Has one client more in use.
async fn add_one(shared: &Shared) -> Result<(), String> {
    let deadline = Instant::now() + MAKING;
    let server = answering(&shared.options, Instant::now() + EXCHANGE).await?;
    let is_its = |client: &Client| *client.connection().server() == server;
    match shared.clients().take_up(is_its, Client::takes_back, Instant::now()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(count) => {
            return Err(format!("{count} connections still wait to take records back"));
        }
    }
    let made = Connection::connect(&shared.options, &server, deadline).await;
    let mut clients = shared.clients();
    match made {
        Ok(connection) => clients.add(Arc::new(Client::new(connection)), Instant::now()),
        Err(why) => {
            clients.fail(Instant::now());
            return Err(why);
        }
    }
    Ok(())
}

/// Records with a place in a client. Dropped, they are taken back.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pool: &'a Pool,
    client: Arc<Client>,
    records: &'a [Record],
    is_kept: bool,
}

impl Placed<'_> {
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// They are there to stay.
    pub(super) fn keep(mut self) -> Arc<Client> {
        self.is_kept = true;
        self.client.clone()
    }

    /// Nacos does not take them. The client is good, and yet would try again by itself.
    pub(super) async fn take_back(mut self, deadline: Instant) {
        let _ = self.pool.take_back(&self.client, self.records, deadline).await;
        // Dropped before that, they are abandoned.
        self.is_kept = true;
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // The SDK may write them by itself until they are taken back.
            self.pool.abandon(&self.client, self.records);
        }
    }
}
