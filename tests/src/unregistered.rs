//! Nodes that register nowhere, for registries that only read, and callers who must not notice what
//! becomes of the registry.

use std::{collections::BTreeSet, time::Duration};

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
    begin: Instant,
    callers: JoinSet<(Vec<String>, BTreeSet<u64>)>,
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
        let begin = Instant::now();
        let (goes_on, is_on) = watch::channel(true);
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (echo, is_on) = (EchoClient::new("echo", &client), is_on.clone());
            callers.spawn(async move {
                let (mut failed, mut answered) = (Vec::new(), BTreeSet::new());
                while *is_on.borrow() {
                    match say(&echo).await {
                        Ok(()) => drop(answered.insert(begin.elapsed().as_secs())),
                        Err(why) => failed.push(why),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (failed, answered)
            });
        }
        Self { begin, callers, goes_on }
    }

    /// Lets them finish; none of their calls has failed, and some were answered in every second.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn finish(self) {
        let seconds = self.begin.elapsed().as_secs();
        self.goes_on.send_replace(false);
        let (failed, answered): (Vec<_>, Vec<_>) =
            self.callers.join_all().await.into_iter().unzip();
        let (failed, answered) =
            (failed.concat(), answered.into_iter().flatten().collect::<BTreeSet<_>>());
        assert!(failed.is_empty(), "{} calls failed, the first: {}", failed.len(), failed[0]);
        // Callers that wait fail no call either.
        let silent: Vec<_> = (0..seconds).filter(|second| !answered.contains(second)).collect();
        assert!(silent.is_empty(), "no call was answered in seconds {silent:?}");
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
