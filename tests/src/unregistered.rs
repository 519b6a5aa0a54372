//! Nodes that register nowhere, for registries that only read, and callers who must not notice what
//! becomes of the registry.

use std::time::Duration;

use micro::{Client, Handle, Service};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    echo::Echo,
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};

/// How many callers call at once.
const CALLERS: usize = 16;

/// An echo node at this address.
///
/// # Panics
/// When it does not start.
pub async fn node(address: &str) -> Handle {
    node_in("memory://unregistered", address).await
}

/// The same of one that registers there.
///
/// # Panics
/// As [`node`].
pub async fn node_in(registry: &str, address: &str) -> Handle {
    let mut service = Service::builder("echo")
        .without_env()
        .registry(registry)
        .address(address)
        .build()
        .await
        .expect("a service");
    register_echo_handler(service.server(), Echo);
    service.start().await.expect("it starts")
}

/// Callers of the service `echo`, each with one call after the other.
#[derive(Debug)]
pub struct Callers {
    callers: JoinSet<Vec<String>>,
    goes_on: watch::Sender<bool>,
}

impl Callers {
    /// Starts them, after a first call that succeeds.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(url: &str) -> Self {
        let client = Client::builder().without_env().registry(url).build().expect("a client");
        let echo = EchoClient::new("echo", &client);
        say(&echo).await.expect("a first call succeeds");
        let (goes_on, is_on) = watch::channel(true);
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (echo, is_on) = (EchoClient::new("echo", &client), is_on.clone());
            callers.spawn(async move {
                let mut failed = Vec::new();
                while *is_on.borrow() {
                    failed.extend(say(&echo).await.err());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failed
            });
        }
        Self { callers, goes_on }
    }

    /// Lets them finish; none of their calls has failed.
    ///
    /// # Panics
    /// When one has.
    pub async fn finish(self) {
        self.goes_on.send_replace(false);
        let failed: Vec<_> = self.callers.join_all().await.concat();
        assert!(failed.is_empty(), "{} calls failed, the first: {}", failed.len(), failed[0]);
    }
}

async fn say(echo: &EchoClient) -> Result<(), String> {
    let start = Instant::now();
    let request = SayRequest { payload: "hi".into() };
    let call = echo.say(request).timeout(Duration::from_secs(3));
    match timeout(Duration::from_secs(10), call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(format!("{status:?} after {:?}", start.elapsed())),
        Err(_) => Err("no answer within 10 s".to_owned()),
    }
}
