//! A real NATS server, for as long as a test needs it.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use async_nats::ConnectOptions;
use micro::registry::Node;
use serde_json::json;

use crate::{
    fault::{Cannot, Server},
    ports,
    process::{self, Process},
    programs::server,
};

/// A server on loopback ports of its own, which it keeps over restarts. Dropped, it is killed.
#[derive(Debug)]
pub struct Nats {
    flags: Vec<String>,
    port: u16,
    monitor_port: u16,
    process: Process,
}

impl Nats {
    /// A server, serving.
    ///
    /// # Panics
    /// When NATS is not there, or does not serve within a minute.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server started with these further flags, serving.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn start_with(flags: &[&str]) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            let mut nats = Self::stopped();
            nats.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            nats.spawn();
            if nats.serves().await {
                return nats;
            }
        }
        panic!("NATS found its ports taken three times over");
    }

    /// Three servers of one cluster, each of which has routes to the others.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn cluster() -> [Self; 3] {
        for _ in 0..3 {
            let routes = [(); 3].map(|()| format!("nats://127.0.0.1:{}", ports::free()));
            let all = routes.join(",");
            let mut members = routes.map(|own| {
                let flags = ["--cluster_name", "micro", "--cluster", &own, "--routes", &all];
                let mut nats = Self::stopped();
                nats.flags = flags.map(str::to_owned).into();
                nats.spawn();
                nats
            });
            let mut all_serve = true;
            for member in &mut members {
                all_serve &= member.serves().await && member.has_routes().await;
            }
            if all_serve {
                return members;
            }
        }
        panic!("NATS found its ports taken three times over");
    }

    /// Waits until it has routes to two others.
    async fn has_routes(&mut self) -> bool {
        let port = self.monitor_port;
        let has_routes = async || {
            let answer = process::get(port, "/routez").await.unwrap_or_default();
            let body = answer.split_once("\r\n\r\n").map_or("null", |(_, body)| body);
            let routes: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let routes = routes["routes"].as_array().into_iter().flatten();
            routes.filter_map(|route| route["remote_id"].as_str()).collect::<HashSet<_>>().len()
                == 2
        };
        self.process.serves(has_routes).await
    }

    /// A server that is not started yet: [`Nats::restart`] does.
    pub fn stopped() -> Self {
        Self {
            flags: Vec::new(),
            port: ports::free(),
            monitor_port: ports::free(),
            process: Process::stopped("nats"),
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where clients are served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client to listen and speak by hand with.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> async_nats::Client {
        self.client_with(ConnectOptions::new()).await
    }

    /// As [`Nats::client`], with these options.
    ///
    /// # Panics
    /// As [`Nats::client`].
    pub async fn client_with(&self, options: ConnectOptions) -> async_nats::Client {
        options.connect(self.url()).await.expect("NATS is reached")
    }

    /// Says something of a node by hand, as go-micro would.
    ///
    /// # Panics
    /// When it cannot be said.
    pub async fn say(&self, action: &str, node: &Node) {
        let nodes = json!([{ "id": node.id, "address": node.address, "metadata": node.metadata }]);
        let service = json!({ "name": node.service, "version": node.version, "nodes": nodes });
        self.publish(json!({ "Service": service, "Action": action }).to_string()).await;
    }

    /// Says this to all.
    ///
    /// # Panics
    /// When it cannot be said.
    pub async fn publish(&self, message: String) {
        let client = self.client().await;
        client.publish("micro.nats.watch", message.into()).await.expect("it is published");
        // The server has it once it answers what was sent behind it; that nobody is there is one.
        let answer = client.request("micro.nats.nobody", "".into()).await;
        answer.expect_err("nobody answers there");
    }

    /// Stops it where it is (SIGSTOP): its port still accepts, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports, and waits until it serves. One that runs is killed first.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "the ports of NATS were taken while it was down");
    }

    /// The same as a restart: it holds nothing that could be lost.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn wipe(&mut self) {
        self.restart().await;
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.port)
    }

    /// How many subscriptions all clients have, by subject.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn subscriptions(&self) -> HashMap<String, usize> {
        let figures = self.figures("/connz?subs=1").await;
        let mut subscriptions = HashMap::new();
        for connection in figures["connections"].as_array().into_iter().flatten() {
            for subject in connection["subscriptions_list"].as_array().into_iter().flatten() {
                let subject = subject.as_str().expect("a subject").to_owned();
                *subscriptions.entry(subject).or_default() += 1;
            }
        }
        subscriptions
    }

    /// How many messages clients have sent to it since its start.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn messages(&self) -> u64 {
        self.figures("/varz").await["in_msgs"].as_u64().expect("a number")
    }

    async fn figures(&self, path: &str) -> serde_json::Value {
        let answer = process::get(self.monitor_port, path).await;
        let answer = answer.expect("NATS serves its figures");
        let body = answer.split_once("\r\n\r\n").expect("an answer has a body").1;
        serde_json::from_str(body).expect("they are JSON")
    }

    fn spawn(&mut self) {
        let (port, monitor_port) = (self.port.to_string(), self.monitor_port.to_string());
        let arguments = ["-a", "127.0.0.1", "-p", &port, "-m", &monitor_port];
        let arguments = arguments.into_iter().chain(self.flags.iter().map(String::as_str));
        self.process.spawn(server("nats-server"), arguments, &[]);
    }

    /// Waits until it serves; false if it ended since a port was taken.
    async fn serves(&mut self) -> bool {
        let port = self.monitor_port;
        let is_healthy = async || {
            let answer = process::get(port, "/healthz").await;
            answer.is_ok_and(|answer| answer.contains(r#""status":"ok""#))
        };
        self.process.serves(is_healthy).await
    }
}

impl Server for Nats {
    const NAME: &'static str = "nats";

    fn stopped() -> Self {
        Self::stopped()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url_at(&self, address: &str) -> String {
        match self.flags.is_empty() {
            true => format!("nats://{address}"),
            false => format!("nats://micro:secret@{address}"),
        }
    }

    fn kill(&mut self) {
        self.kill();
    }

    async fn restart(&mut self) {
        self.restart().await;
    }

    fn pause(&self) {
        self.pause();
    }

    fn resume(&self) {
        self.resume();
    }

    async fn delete(&self, node: &Node) -> Result<(), Cannot> {
        self.say("delete", node).await;
        Ok(())
    }

    async fn overwrite(&self, node: &Node) -> Result<(), Cannot> {
        let other = Node { address: "127.0.0.1:1".to_owned(), ..node.clone() };
        self.say("create", &other).await;
        Ok(())
    }

    async fn guarded() -> Result<Self, Cannot> {
        let mut nats = Self::stopped();
        let config = nats.process.dir().join("nats.conf").display().to_string();
        nats.flags = vec!["-c".to_owned(), config];
        nats.set_password("secret");
        nats.restart().await;
        Ok(nats)
    }

    async fn expire(&self) {
        // Whoever is connected is cut off, and cannot sign in again.
        self.set_password("another");
        self.process.reload();
    }

    async fn renew(&self) {
        self.set_password("secret");
        self.process.reload();
    }
}

impl Nats {
    fn set_password(&self, password: &str) {
        let users =
            format!(r#"authorization {{ users = [ {{ user: micro, password: {password} }} ] }}"#);
        let config = self.process.dir().join("nats.conf");
        fs::write(config, users).expect("a configuration is written");
    }
}
