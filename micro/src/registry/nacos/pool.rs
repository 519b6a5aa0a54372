//! The clients of a process: one, and one more for each further node of a service that it has.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{client::Client, failure::Failure, options::Options, record::Record};

/// The bound of making one. Its caller waits no longer than for any exchange.
const MAKING: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    clients: Mutex<Clients>,
    /// Held while one is made: the next may do with it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Clients {
    all: Vec<Arc<Client>>,
    /// How often one was to be made.
    attempts: u64,
    /// What came of the last attempt.
    last: Result<(), String>,
}

impl Pool {
    pub(super) fn new(options: Options) -> Self {
        let clients = Mutex::new(Clients { all: Vec::new(), attempts: 0, last: Ok(()) });
        Self {
            shared: Arc::new(Shared { options, clients, making: tokio::sync::Mutex::default() }),
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

    /// The same in the client where they are already, unless it was given up, or it has another address
    /// there: it would have both.
    pub(super) fn place_again<'a>(
        &'a self,
        client: Arc<Client>,
        records: &'a [Record],
    ) -> Option<Placed<'a>> {
        let is_in_use = self.clients().all.iter().any(|it| Arc::ptr_eq(it, &client));
        (is_in_use && client.has(records)).then(|| self.placed(client, records))
    }

    fn placed<'a>(&'a self, client: Arc<Client>, records: &'a [Record]) -> Placed<'a> {
        Placed { pool: self, client, records, is_kept: false }
    }

    async fn pick(
        &self,
        is_fit: impl Fn(&Client) -> bool,
        deadline: Instant,
    ) -> Result<Arc<Client>, String> {
        loop {
            let (found, attempts) = {
                let clients = self.clients();
                (clients.all.iter().find(|client| is_fit(client)).cloned(), clients.attempts)
            };
            if let Some(client) = found {
                return Ok(client);
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

    /// Leaves a client that does not answer to those who have it.
    pub(super) fn retire(&self, client: &Arc<Client>) {
        self.clients().all.retain(|it| !Arc::ptr_eq(it, client));
    }

    /// What a client failed with; if it is of no use, it is given up.
    pub(super) fn failed(&self, client: &Arc<Client>, failure: &Failure) -> String {
        if matches!(failure, Failure::Broken(_)) {
            self.retire(client);
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
        for record in records {
            let Err(failure) = client.deregister(&record.service, deadline).await else { continue };
            match failure {
                // Nothing would come of asking again, and the client is as good as any: one more for
                // each refusal would be one more connection for each.
                Failure::Refused(_) => client.free(records),
                Failure::Broken(_) => self.abandon(client, records),
            }
            return Err(failure.to_string());
        }
        Ok(())
    }

    fn abandon(&self, client: &Arc<Client>, records: &[Record]) {
        // Whatever else it does, the SDK may write these anew until they are taken back.
        self.retire(client);
        client.abandon(records.iter().map(|record| record.service.clone()));
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.shared.clients()
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client, unless that was tried since there were so many attempts: the answer is theirs then,
/// so that those who wait do not queue for their own.
async fn make(shared: Arc<Shared>, attempts: u64) -> Result<(), String> {
    let _turn = shared.making.lock().await;
    {
        let clients = shared.clients();
        if clients.attempts > attempts {
            return clients.last.clone();
        }
    }
    let made = Client::connect(&shared.options, Instant::now() + MAKING).await;
    let mut clients = shared.clients();
    clients.attempts += 1;
    clients.last = made.map(|client| clients.all.push(Arc::new(client)));
    clients.last.clone()
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
            self.pool.abandon(&self.client, self.records);
        }
    }
}
