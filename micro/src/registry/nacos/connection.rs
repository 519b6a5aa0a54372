//! One connection of Nacos's SDK: made, and asked within bounds.
//!
//! Nobody can close it: it stays, with nothing on it, until the server or the network ends it, and the
//! SDK connects again by itself and writes anew what was registered or subscribed.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use nacos_sdk::api::{
    error::Result as SdkResult,
    naming::{NamingEventListener, NamingService, NamingServiceBuilder, ServiceInstance},
    props::ClientProps,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout_at},
};

use super::{
    failure::{Failure, failure, no_answer, said},
    login::Login,
    options::{Options, Server},
};

/// The bound of one attempt that nobody waits for, and the longest pause before the next.
const ATTEMPT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often Nacos may refuse what is asked again and again: the first time it may be for the token.
const MOST_REFUSALS: u32 = 3;

/// Names of services that are asked for at once.
const PAGE: i32 = 1000;

/// The most names that are taken.
const MAX_SERVICES: usize = 100_000;

/// The clusters asked for. Servers do not agree on what it is to name some.
const ALL: [String; 0] = [];

pub(super) struct Connection {
    server: Server,
    naming: NamingService,
    login: Arc<Login>,
    group: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection to this server.
    ///
    /// # Errors
    /// What the server says, in words.
    pub(super) async fn connect(
        options: &Options,
        server: &Server,
        deadline: Instant,
    ) -> Result<Self, String> {
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
        match connected.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(naming) => {
                Ok(Self { server: server.clone(), naming, login, group: options.group.clone() })
            }
            Err(why) => {
                login.end();
                Err(format!("{}: {why}", server.main))
            }
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// A runtime that lives as long as the process, if there is one.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.login.runtime()
    }

    pub(super) async fn register(
        &self,
        service: &str,
        instance: ServiceInstance,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let group = Some(self.group.clone());
        let asked = self.naming.register_instance(service.to_owned(), group, instance);
        self.bounded(deadline, asked).await
    }

    pub(super) async fn deregister(
        &self,
        service: &str,
        instance: ServiceInstance,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let group = Some(self.group.clone());
        let asked = self.naming.deregister_instance(service.to_owned(), group, instance);
        self.bounded(deadline, asked).await
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

    /// Has Nacos tell a listener of changes of a service. The SDK throws Nacos's answer away: no failure
    /// but the deadline's is seen, and who follows must look now and then without being told.
    pub(super) async fn subscribe(
        &self,
        service: &str,
        listener: Arc<dyn NamingEventListener>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let group = Some(self.group.clone());
        let asked = self.naming.subscribe(service.to_owned(), group, ALL.into(), listener);
        self.bounded(deadline, asked).await
    }

    /// Has Nacos tell it no more.
    pub(super) async fn unsubscribe(
        &self,
        service: &str,
        listener: Arc<dyn NamingEventListener>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let group = Some(self.group.clone());
        let asked = self.naming.unsubscribe(service.to_owned(), group, ALL.into(), listener);
        self.bounded(deadline, asked).await
    }

    async fn bounded<T>(
        &self,
        deadline: Instant,
        exchange: impl Future<Output = SdkResult<T>>,
    ) -> Result<T, Failure> {
        let mut start = Instant::now();
        let exchange = async {
            self.login.ensure().await?;
            start = Instant::now();
            match AssertUnwindSafe(exchange).catch_unwind().await {
                Ok(answer) => answer.map_err(|error| failure(&error)),
                Err(panic) => Err(Failure::Broken(said(&*panic))),
            }
        };
        let answer = timeout_at(deadline, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer(deadline - start)));
        // It may be for the token.
        if matches!(answer, Err(Failure::Denied(_))) {
            self.login.doubt();
        }
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.login.end();
    }
}

/// Asks again and again, each time with a deadline, until Nacos has done it, or will not.
pub(super) async fn until_done<A>(attempt: impl Fn(Instant) -> A)
where
    A: Future<Output = Result<(), Failure>>,
{
    let mut pause = Duration::from_secs(1);
    let mut refusals = 0;
    while refusals < MOST_REFUSALS {
        match attempt(Instant::now() + ATTEMPT).await {
            Ok(()) => return,
            Err(failure) if failure.is_refusal() => refusals += 1,
            // The SDK waits for a connection by itself.
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
