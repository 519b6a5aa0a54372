//! The connections to an agent: those of exchanges, and those of watches, so many on each.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{Client, redirect::Policy};
use rustls::ClientConfig;

use super::{
    super::causes::with_causes,
    agent::EXCHANGE,
    files::Files,
    options::{At, Options},
};

/// Connections kept between exchanges.
const KEPT: usize = 4;

/// Watches on one connection, over TLS: an agent speaks HTTP/2 there, and takes 250 requests at once on
/// a connection. More would wait for a watch to end, and with them a renewal.
const WATCHES_A_CONNECTION: usize = 100;

/// A connection whose agent is gone without a word is given up after some 20 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Connections {
    held: Mutex<Held>,
    certificates: Files<ClientConfig>,
}

#[derive(Default)]
struct Held {
    /// The first for exchanges, each other one for so many watches.
    clients: Vec<Option<Client>>,
    /// What all of them have, once the certificates are read: by the first that needs them.
    tls: Option<ClientConfig>,
    /// How many watches each has.
    watches: Vec<usize>,
    /// How often they were given up: an error speaks against the connections of its time.
    generation: u64,
}

/// Whose connections an exchange is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane(usize);

/// All but watches.
pub(super) const EXCHANGES: Lane = Lane(0);

impl Connections {
    /// Finds a place for a watch.
    pub(super) fn enter(&self) -> Lane {
        self.held().place()
    }

    /// Gives it up.
    pub(super) fn leave(&self, Lane(lane): Lane) {
        self.held().watches[lane] -= 1;
    }

    pub(super) async fn client(
        &self,
        options: &Options,
        Lane(lane): Lane,
    ) -> Result<(Client, u64), String> {
        let generation = {
            let held = self.held();
            if let Some(Some(client)) = held.clients.get(lane) {
                return Ok((client.clone(), held.generation));
            }
            held.generation
        };
        let tls = self.tls(options, generation).await?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            // Not even to follow one is the token given away.
            .redirect(Policy::none())
            .connect_timeout(EXCHANGE)
            .pool_max_idle_per_host(KEPT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(KEEPALIVE_RETRIES);
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(UNACKNOWLEDGED);
        }
        if let At::Socket(path) = &options.at {
            builder = builder.unix_socket(path.as_path());
        }
        let client = builder.build().map_err(|error| with_causes(&error))?;
        let mut held = self.held();
        if held.generation == generation {
            let lanes = held.clients.len().max(lane + 1);
            held.clients.resize(lanes, None);
            // Another may have been faster.
            return Ok((held.clients[lane].get_or_insert(client).clone(), generation));
        }
        Ok((client, generation))
    }

    async fn tls(&self, options: &Options, generation: u64) -> Result<ClientConfig, String> {
        let known = || self.held().tls.clone();
        if let Some(tls) = known() {
            return Ok(tls);
        }
        let options = options.clone();
        let tls = self.certificates.read(known, move || options.tls()).await?;
        let mut held = self.held();
        if held.generation == generation {
            held.tls = Some(tls.clone());
        }
        Ok(tls)
    }

    /// Forgets the connections of that time: the next exchange makes new ones.
    pub(super) fn discard(&self, generation: u64) {
        let mut held = self.held();
        if held.generation == generation {
            held.generation += 1;
            held.clients.clear();
            held.tls = None;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn place(&mut self) -> Lane {
        self.watches.resize(self.watches.len().max(1), 0);
        let has_room = |(lane, count): (usize, &usize)| lane > 0 && *count < WATCHES_A_CONNECTION;
        let lane = self.watches.iter().enumerate().position(has_room).unwrap_or_else(|| {
            self.watches.push(0);
            self.watches.len() - 1
        });
        self.watches[lane] += 1;
        Lane(lane)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{
            super::url::Url,
            agent::{Agent, Place},
        },
        *,
    };

    #[test]
    fn a_connection_has_so_many_watches_and_a_place_that_is_left_is_taken_again() {
        let url = Url::parse("consul://h:1?tls=true").unwrap();
        let agent = Arc::new(Agent::new(Options::of(&url).unwrap()));
        let place = || Place::of(agent.clone());
        let mut places: Vec<_> = (0..2 * WATCHES_A_CONNECTION + 1).map(|_| place()).collect();
        let lane = |place: &Place| place.lane.0;
        let on = |places: &[Place], it| places.iter().filter(|place| lane(place) == it).count();
        assert_eq!([0, 1, 2, 3].map(|it| on(&places, it)), [0, 100, 100, 1]);
        drop(places.remove(3));
        assert_eq!([place(), place()].each_ref().map(lane), [1, 3]);
        places.clear();
        assert_eq!(lane(&place()), 1);
    }

    /// Of a P-256 key that nobody has.
    const CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBcDCCARegAwIBAgIUStywR01i3WybAdORlsH11SwVNskwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI2MDk1MDMxWhgPMjEyNjExMDIwOTUwMzFa
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEg7Ug0ye4
Zauj848Ut3NEpmcWjR+v3PnRZUugICrJ7GKZ11vK641y5ZOlI5ZdoTkji2MzG2xZ
e2a8HG+rc48drKNTMFEwHQYDVR0OBBYEFBwFyJPvzxBi4K+CCngZfluA4+tYMB8G
A1UdIwQYMBaAFBwFyJPvzxBi4K+CCngZfluA4+tYMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDRwAwRAIgNXeoN1+1DSha/n8HTEEa7XrUXbeQN8Ir1lrqs2hm
VmQCIC7W9dOTi1SF9F2XCZXrY0Ldc7hXohc0LLqRtgIBuxqc
-----END CERTIFICATE-----
";

    #[tokio::test]
    async fn certificates_are_read_once_until_connections_are_given_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), CA).unwrap();
        let url = format!("consul://h:1?tls=true&ca={}", file.path().display());
        let options = Options::of(&Url::parse(&url).unwrap()).unwrap();
        let connections = Connections::default();
        let (_, generation) = connections.client(&options, EXCHANGES).await.unwrap();
        std::fs::write(file.path(), "").unwrap();
        connections.client(&options, Lane(1)).await.expect("with what was read for the first");
        connections.discard(generation);
        let why = connections.client(&options, Lane(1)).await.expect_err("they are read anew");
        assert!(why.contains("has no certificate"), "{why}");
    }
}
