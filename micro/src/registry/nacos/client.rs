//! One client of Nacos's SDK, and with it one connection: made, asked, and ended for good.
//!
//! The SDK keeps a client alive for as long as anything is registered or subscribed through it, dropped
//! or not: it connects again by itself and writes it all anew. So what was asked through a client is
//! noted here, and taken back before it goes. The connection itself nobody can close: it stays, with
//! nothing on it, until the server or the network ends it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use nacos_sdk::api::{
    error::Result as SdkResult,
    naming::{
        NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder,
        ServiceInstance,
    },
    props::ClientProps,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    EXCHANGE,
    failure::{Failure, failure, no_answer, said},
    login::Login,
    options::Options,
    record::Record,
    server::answering,
};

/// The bound of one attempt to take something back, and the longest pause before the next.
const TAKE_BACK: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Names of services that are asked for at once.
const PAGE: i32 = 1000;

/// The most names that are taken.
const MAX_SERVICES: usize = 100_000;

/// The clusters asked for. Servers do not agree on what it is to name some.
const ALL: [String; 0] = [];

pub(super) struct Client {
    naming: NamingService,
    login: Arc<Login>,
    group: String,
    /// What is registered, by Nacos's service: of one client it has one instance each.
    registered: Mutex<BTreeMap<String, ServiceInstance>>,
    /// Held while the SDK is asked: of a subscription and its end the later one counts.
    subscribed: tokio::sync::Mutex<HashMap<String, Subscription>>,
}

/// What is told of a service, and to how many.
struct Subscription {
    listener: Arc<Listener>,
    count: usize,
}

struct Listener(watch::Sender<()>);

impl NamingEventListener for Listener {
    fn event(&self, _: Arc<NamingChangeEvent>) {
        self.0.send_replace(());
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("login", &self.login).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the first server that answers within the time of an exchange.
    ///
    /// # Errors
    /// What each server says, in words.
    pub(super) async fn connect(options: &Options, deadline: Instant) -> Result<Self, String> {
        let server = answering(options, deadline.min(Instant::now() + EXCHANGE)).await?;
        let login = Arc::new(Login::new(server.main.clone(), options.user.clone()));
        let connect = async {
            login.ensure().await.map_err(|failure| failure.to_string())?;
            // Neither Nacos's own variables nor what its files kept of an earlier process count.
            let props = ClientProps::new()
                .env_first(false)
                .server_addr(&server.main)
                .namespace(&options.namespace)
                .app_name("micro")
                .naming_push_empty_protection(false);
            let props = match options.grpc_port {
                Some(port) => props.remote_grpc_port(port),
                None => props,
            };
            let build = NamingServiceBuilder::new(props).with_auth_plugin(login.clone()).build();
            let built = AssertUnwindSafe(build).catch_unwind().await;
            built.map_err(|panic| said(&*panic))?.map_err(|error| failure(&error).to_string())
        };
        let connected = timeout_at(deadline, connect).await;
        let naming = match connected.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(naming) => naming,
            Err(why) => {
                login.end();
                return Err(format!("{}: {why}", server.main));
            }
        };
        Ok(Self {
            naming,
            login,
            group: options.group.clone(),
            registered: Mutex::default(),
            subscribed: tokio::sync::Mutex::default(),
        })
    }

    /// Takes the places of these records, if none is taken.
    pub(super) fn reserve(&self, records: &[Record]) -> bool {
        let mut registered = self.registered();
        if records.iter().any(|record| registered.contains_key(&record.service)) {
            return false;
        }
        let places = records.iter().map(|it| (it.service.clone(), it.instance.clone()));
        registered.extend(places);
        true
    }

    /// Gives the places of these records up.
    pub(super) fn free(&self, records: &[Record]) {
        let mut registered = self.registered();
        records.iter().for_each(|record| drop(registered.remove(&record.service)));
    }

    /// Whether every one of these records has its place here already, and with that address.
    pub(super) fn has(&self, records: &[Record]) -> bool {
        let registered = self.registered();
        records.iter().all(|it| registered.get(&it.service).is_some_and(|own| it.is_at(own)))
    }

    pub(super) async fn register(&self, record: &Record, deadline: Instant) -> Result<(), Failure> {
        let Record { service, instance } = record.clone();
        self.registered().insert(service.clone(), instance.clone());
        let group = Some(self.group.clone());
        self.bounded(deadline, self.naming.register_instance(service, group, instance)).await
    }

    /// Takes a record back; its place is free then.
    pub(super) async fn deregister(&self, service: &str, deadline: Instant) -> Result<(), Failure> {
        let Some(instance) = self.registered().get(service).cloned() else { return Ok(()) };
        let group = Some(self.group.clone());
        let gone = self.naming.deregister_instance(service.to_owned(), group, instance);
        self.bounded(deadline, gone).await?;
        self.registered().remove(service);
        Ok(())
    }

    /// The instances of one of Nacos's services.
    pub(super) async fn instances(
        &self,
        service: &str,
        deadline: Instant,
    ) -> Result<Vec<ServiceInstance>, Failure> {
        let group = Some(self.group.clone());
        let asked = self.naming.get_all_instances(service.to_owned(), group, ALL.into(), false);
        self.bounded(deadline, asked).await
    }

    /// The names of all of Nacos's services in the group.
    pub(super) async fn services(&self, bound: Duration) -> Result<Vec<String>, Failure> {
        let mut services = Vec::new();
        for page in 1.. {
            let asked = self.naming.get_service_list(page, PAGE, Some(self.group.clone()));
            let (names, _) = self.bounded(Instant::now() + bound, asked).await?;
            let is_last = names.len() < PAGE as usize;
            services.extend(names);
            if services.len() > MAX_SERVICES {
                return Err(Failure::Refused(format!("it has over {MAX_SERVICES} services")));
            }
            if is_last {
                break;
            }
        }
        Ok(services)
    }

    /// Has Nacos tell of changes of these services, for as long as what this returns is held.
    pub(super) async fn follow(
        self: &Arc<Self>,
        services: &[String],
        deadline: Instant,
    ) -> Result<Followed, Failure> {
        let mut followed = Followed { client: self.clone(), told: Vec::new() };
        for service in services {
            let turn = timeout_at(deadline, self.subscribed.lock()).await;
            let mut subscribed = turn.map_err(|_| no_answer())?;
            // Noted first: it may be half done.
            let subscription = subscribed.entry(service.clone()).or_insert_with(|| Subscription {
                listener: Arc::new(Listener(watch::Sender::new(()))),
                count: 0,
            });
            // Also one that is left of a subscription whose end Nacos did not confirm.
            let is_new = subscription.count == 0;
            subscription.count += 1;
            followed.told.push((service.clone(), subscription.listener.0.subscribe()));
            if is_new {
                let listener = subscription.listener.clone();
                let group = Some(self.group.clone());
                let asked = self.naming.subscribe(service.clone(), group, ALL.into(), listener);
                self.bounded(deadline, asked).await?;
            }
        }
        Ok(followed)
    }

    /// One who follows a service does so no more. Of the last, Nacos is told.
    async fn unfollow(&self, service: &str) {
        let mut subscribed = self.subscribed.lock().await;
        let Some(subscription) = subscribed.get_mut(service) else { return };
        subscription.count -= 1;
        if subscription.count == 0 {
            let listener = subscription.listener.clone();
            let (service, group) = (service.to_owned(), Some(self.group.clone()));
            let asked = self.naming.unsubscribe(service.clone(), group, ALL.into(), listener);
            // Else it stays until the next who follows it, or the client's end.
            if self.bounded(Instant::now() + TAKE_BACK, asked).await.is_ok() {
                subscribed.remove(&service);
            }
        }
    }

    /// Takes these records back however long it takes: no one uses the client any more.
    pub(super) fn abandon(&self, services: impl IntoIterator<Item = String>) {
        let mut registered = self.registered();
        let places: Vec<_> =
            services.into_iter().filter_map(|it| registered.remove_entry(&it)).collect();
        drop(registered);
        self.take_back(places, Vec::new());
    }

    fn take_back(
        &self,
        registered: Vec<(String, ServiceInstance)>,
        subscribed: Vec<(String, Arc<Listener>)>,
    ) {
        // Without a runtime the process is about to end, and the connection with it.
        let Some(runtime) = self.login.runtime() else { return };
        if registered.is_empty() && subscribed.is_empty() {
            return;
        }
        let (naming, login) = (self.naming.clone(), self.login.clone());
        let group = self.group.clone();
        runtime.spawn(async move {
            for (service, instance) in registered {
                // The SDK may write it anew until it is told that it is gone, and may just have: what
                // comes after that is the last word.
                for _ in 0..2 {
                    until_done(&login, || {
                        let (service, group) = (service.clone(), Some(group.clone()));
                        naming.deregister_instance(service, group, instance.clone())
                    })
                    .await;
                }
            }
            for (service, listener) in subscribed {
                until_done(&login, || {
                    let (service, group) = (service.clone(), Some(group.clone()));
                    naming.unsubscribe(service, group, ALL.into(), listener.clone())
                })
                .await;
            }
        });
    }

    async fn bounded<T>(
        &self,
        deadline: Instant,
        exchange: impl Future<Output = SdkResult<T>>,
    ) -> Result<T, Failure> {
        let exchange = async {
            self.login.ensure().await?;
            match AssertUnwindSafe(exchange).catch_unwind().await {
                Ok(answer) => answer.map_err(|error| failure(&error)),
                Err(panic) => Err(Failure::Broken(said(&*panic))),
            }
        };
        let answer = timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(no_answer()));
        // It may be for the token: the next exchange has another.
        if matches!(answer, Err(Failure::Refused(_))) {
            self.login.forget();
        }
        answer
    }

    fn registered(&self) -> MutexGuard<'_, BTreeMap<String, ServiceInstance>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let registered = std::mem::take(&mut *self.registered()).into_iter().collect();
        let subscribed = std::mem::take(self.subscribed.get_mut());
        let subscribed = subscribed.into_iter().map(|(service, it)| (service, it.listener));
        self.take_back(registered, subscribed.collect());
        self.login.end();
    }
}

/// Services that are followed. Dropped, they are not.
#[derive(Debug)]
pub(super) struct Followed {
    client: Arc<Client>,
    told: Vec<(String, watch::Receiver<()>)>,
}

impl Followed {
    /// The client that follows them.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Ends when there may have been a change since it ended last.
    pub(super) async fn changed(&mut self) {
        let mut told: FuturesUnordered<_> =
            self.told.iter_mut().map(|(_, told)| told.changed()).collect();
        // The senders are the client's.
        let _ = told.next().await;
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Some(runtime) = self.client.login.runtime() else { return };
        let client = self.client.clone();
        let services: Vec<_> = self.told.drain(..).map(|(service, _)| service).collect();
        runtime.spawn(async move {
            for service in services {
                client.unfollow(&service).await;
            }
        });
    }
}

/// How often Nacos may refuse what is taken back: the first time it may be for the token.
const MOST_REFUSALS: u32 = 3;

/// Does it again and again, until Nacos has done it, or will not.
async fn until_done<E: Future<Output = SdkResult<()>>>(login: &Login, exchange: impl Fn() -> E) {
    let mut pause = Duration::from_secs(1);
    let mut refusals = 0;
    while refusals < MOST_REFUSALS {
        let attempt = async {
            let _ = login.ensure().await;
            AssertUnwindSafe(exchange()).catch_unwind().await
        };
        match timeout(TAKE_BACK, attempt).await {
            Ok(Ok(Ok(()))) => return,
            Ok(answer) => {
                login.forget();
                let is_refused = |error| matches!(failure(&error), Failure::Refused(_));
                refusals += u32::from(answer.is_ok_and(|answer| answer.is_err_and(is_refused)));
            }
            // The SDK waits for a connection by itself.
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
