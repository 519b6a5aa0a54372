//! A connection with what is registered and followed through it.
//!
//! The SDK keeps all of that for as long as the process lives, whatever is dropped. So what was asked is
//! noted here, and taken back before a client goes.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nacos_sdk::api::naming::ServiceInstance;
use tokio::time::Instant;

use super::{
    connection::{Connection, until_done},
    failure::Failure,
    followed::Followed,
    record::{Record, is_at, vacant},
};

#[derive(Debug)]
pub(super) struct Client {
    connection: Arc<Connection>,
    /// What is registered, by Nacos's service: of one client it has one instance each.
    places: Arc<Mutex<BTreeMap<String, Place>>>,
    followed: Arc<Followed>,
}

#[derive(Debug)]
struct Place {
    instance: ServiceInstance,
    /// It is being taken back, and not to be had until that is done: what is written there meanwhile
    /// would be taken back.
    is_leaving: bool,
}

impl Place {
    fn of(record: &Record) -> (String, Self) {
        let instance = record.instance.clone();
        (record.service.clone(), Self { instance, is_leaving: false })
    }
}

impl Client {
    pub(super) fn new(connection: Connection) -> Self {
        let connection = Arc::new(connection);
        let followed = Arc::new(Followed::new(connection.clone()));
        Self { connection, places: Arc::default(), followed }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    /// Takes the places of these records, if none is taken.
    pub(super) fn reserve(&self, records: &[Record]) -> bool {
        let mut places = self.places();
        if records.iter().any(|record| places.contains_key(&record.service)) {
            return false;
        }
        places.extend(records.iter().map(Place::of));
        true
    }

    /// Gives the places of these records up.
    pub(super) fn free(&self, records: &[Record]) {
        let mut places = self.places();
        records.iter().for_each(|record| drop(places.remove(&record.service)));
    }

    /// Whether every one of these records has its place here already, and with that address.
    pub(super) fn has(&self, records: &[Record]) -> bool {
        let places = self.places();
        let has = |it: &Record, place: &Place| !place.is_leaving && it.is_at(&place.instance);
        records.iter().all(|it| places.get(&it.service).is_some_and(|place| has(it, place)))
    }

    /// Whether a record is being taken back still.
    pub(super) fn takes_back(&self) -> bool {
        self.places().values().any(|place| place.is_leaving)
    }

    /// Writes a record that has its place here.
    pub(super) async fn register(&self, record: &Record, deadline: Instant) -> Result<(), Failure> {
        self.places().extend([Place::of(record)]);
        self.connection.register(&record.service, record.instance.clone(), deadline).await
    }

    /// Takes a record back; its place is free then.
    pub(super) async fn deregister(&self, service: &str, deadline: Instant) -> Result<(), Failure> {
        let instance = self.places().get(service).map(|place| place.instance.clone());
        let Some(instance) = instance else { return Ok(()) };
        self.connection.deregister(service, instance, deadline).await?;
        self.places().remove(service);
        Ok(())
    }

    /// What is registered of this service at this address, if it is there to stay.
    fn stays(&self, service: &str, address: &ServiceInstance) -> Option<ServiceInstance> {
        let places = self.places();
        let place = places.get(service).filter(|place| !place.is_leaving)?;
        is_at(&place.instance, address).then(|| place.instance.clone())
    }

    /// Whether something of this service is registered at this address, and there to stay.
    pub(super) fn keeps(&self, service: &str, address: &ServiceInstance) -> bool {
        self.stays(service, address).is_some()
    }

    /// Writes anew what is [kept](Self::keeps).
    pub(super) async fn write_anew(
        &self,
        service: &str,
        address: &ServiceInstance,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Some(mut instance) = self.stays(service, address) else { return Ok(()) };
        loop {
            self.connection.register(service, instance.clone(), deadline).await?;
            match self.stays(service, address) {
                // With its lease.
                Some(now) if now.metadata == instance.metadata => return Ok(()),
                // Registered again meanwhile, and that may have come first.
                Some(now) => instance = now,
                // Taken back meanwhile, and that may have come first.
                None => break,
            }
        }
        let gone = |deadline| self.connection.deregister(service, instance.clone(), deadline);
        until_done(gone).await;
        Ok(())
    }

    /// Takes these records back, however long it takes. What others have written at their addresses since
    /// is written anew in between: it is asked for by service and address.
    pub(super) fn abandon<W>(
        &self,
        records: &[Record],
        write_anew: impl Fn(String, ServiceInstance) -> W,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut places = self.places();
        for Record { service, .. } in records {
            if let Some(place) = places.get_mut(service).filter(|place| !place.is_leaving) {
                place.is_leaving = true;
                let write_anew = write_anew(service.clone(), place.instance.clone());
                self.take_back(service.clone(), place.instance.clone(), write_anew);
            }
        }
    }

    fn take_back(
        &self,
        service: String,
        instance: ServiceInstance,
        write_anew: impl Future<Output = ()> + Send + 'static,
    ) {
        // Without a runtime the process is about to end, and the connection with it.
        let Some(runtime) = self.connection.runtime() else { return };
        let (connection, places) = (self.connection.clone(), self.places.clone());
        runtime.spawn(async move {
            // Until it is told that it is gone the SDK may write it anew, over what another client has
            // written there since, and what is told then would take that along. So it is first given
            // something else to write.
            let vacant = vacant(&instance);
            until_done(|deadline| connection.register(&service, vacant.clone(), deadline)).await;
            // It may have written the record over another's before that. What a client does not own it
            // cannot take along: whoever writes last owns it.
            write_anew.await;
            // The SDK may just have written the vacant one: what comes after that is the last word.
            for gone in [&vacant, &instance, &vacant] {
                until_done(|deadline| connection.deregister(&service, gone.clone(), deadline))
                    .await;
            }
            places.lock().unwrap_or_else(PoisonError::into_inner).remove(&service);
        });
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let places = std::mem::take(&mut *self.places());
        for (service, place) in places.into_iter().filter(|(_, place)| !place.is_leaving) {
            // No other client is left to have written there.
            self.take_back(service, place.instance, ready(()));
        }
    }
}
