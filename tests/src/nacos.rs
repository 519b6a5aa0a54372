//! A real rnacos, which speaks Nacos's protocols, for as long as a test needs it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::registry::{self, Node, Registry};
use reqwest::{Method, Url, header};
use serde_json::{Value, json};

use crate::{
    consul::client,
    fault::{Cannot, Server},
    ports,
    process::{self, Process},
    programs::server,
};

/// From the main port to the one where gRPC is spoken.
const TO_GRPC: u16 = 1000;

/// Who may do all, where one must sign in.
const USER: &str = "root";
const PASSWORD: &str = "p@ss:w/rd";

/// A server on loopback ports of its own, which it keeps over restarts. Dropped, it is killed and its
/// data removed. Of what is registered it keeps nothing over a restart.
#[derive(Debug)]
pub struct Nacos {
    port: u16,
    console_port: u16,
    is_guarded: bool,
    /// Data folders so far: a wiped server has a new one.
    data: usize,
    process: Process,
    /// Those through whom others registered.
    others: Mutex<Vec<Arc<dyn Registry>>>,
}

impl Nacos {
    /// A server that serves.
    ///
    /// # Panics
    /// When rnacos is not there, or does not serve.
    pub async fn start() -> Self {
        Self::start_with(false).await
    }

    /// A server where one must sign in.
    ///
    /// # Panics
    /// As [`Nacos::start`].
    pub async fn start_guarded() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(is_guarded: bool) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            let mut nacos = Self { is_guarded, ..Self::stopped() };
            nacos.spawn();
            if nacos.serves().await {
                return nacos;
            }
        }
        panic!("rnacos found its ports taken three times over");
    }

    /// A server that is not started yet: [`Nacos::restart`] does.
    ///
    /// # Panics
    /// When there are no ports to be had.
    pub fn stopped() -> Self {
        let port = ports::free_with(TO_GRPC);
        Self {
            port,
            console_port: ports::free(),
            is_guarded: false,
            data: 0,
            process: Process::stopped("rnacos"),
            others: Mutex::default(),
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        match self.is_guarded {
            true => self.url_of(USER, PASSWORD),
            false => format!("nacos://{}", self.main_address()),
        }
    }

    /// The same with a user and password of one's own.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let password = password
            .replace('%', "%25")
            .replace('@', "%40")
            .replace('/', "%2F")
            .replace(':', "%3A");
        format!("nacos://{user}:{password}@{}", self.main_address())
    }

    /// `127.0.0.1:PORT` of the main port, where HTTP is spoken.
    pub fn main_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT` where gRPC is spoken.
    pub fn grpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + TO_GRPC)
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.port + TO_GRPC)
    }

    /// What it tells of itself, in Prometheus' format.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn metrics(&self) -> String {
        process::get(self.port, "/metrics").await.expect("rnacos serves its metrics")
    }

    /// The instances of a service, as rnacos tells of them by HTTP.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn instances(&self, service: &str) -> Vec<Value> {
        let answer = self.ask(Method::GET, "instance/list", &[("serviceName", service)]).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["hosts"].as_array().expect("it lists hosts").clone()
    }

    /// Writes an ephemeral instance by hand.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn write(&self, service: &str, ip: &str, port: u16, metadata: &Value) {
        let (port, metadata) = (port.to_string(), metadata.to_string());
        let query = [
            ("serviceName", service),
            ("ip", ip),
            ("port", &port),
            ("ephemeral", "true"),
            ("metadata", &metadata),
        ];
        self.ask(Method::POST, "instance", &query).await;
    }

    /// Deletes an instance by hand.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn delete_instance(&self, service: &str, address: &str) {
        let (ip, port) = address.rsplit_once(':').expect("host:port");
        let query = [("serviceName", service), ("ip", ip), ("port", port), ("ephemeral", "true")];
        self.ask(Method::DELETE, "instance", &query).await;
    }

    async fn ask(&self, method: Method, what: &str, query: &[(&str, &str)]) -> String {
        ask(&self.main_address(), method, what, query).await
    }

    /// Stops it where it is (SIGSTOP): its ports still accept, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Kills it (SIGKILL) and waits for its end. Its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and data, and waits until it serves. One that runs is
    /// killed first.
    ///
    /// # Panics
    /// As [`Nacos::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "rnacos's ports were taken while it was down");
    }

    /// Kills it and starts it on the same ports with nothing in it.
    ///
    /// # Panics
    /// As [`Nacos::start`].
    pub async fn wipe(&mut self) {
        self.kill();
        self.data += 1;
        self.restart().await;
    }

    fn spawn(&mut self) {
        let data = self.process.dir().join(format!("data-{}", self.data)).display().to_string();
        let variables = [
            ("RNACOS_SDK_HOST", "127.0.0.1".to_owned()),
            ("RNACOS_CONSOLE_HOST", "127.0.0.1".to_owned()),
            ("RNACOS_HTTP_PORT", self.port.to_string()),
            ("RNACOS_GRPC_PORT", (self.port + TO_GRPC).to_string()),
            ("RNACOS_HTTP_CONSOLE_PORT", self.console_port.to_string()),
            ("RNACOS_RAFT_NODE_ADDR", self.grpc_address()),
            ("RNACOS_DATA_DIR", data),
            // Else it gives whoever registers at an address the metadata that was there first, which
            // Nacos does not.
            ("RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE", "false".to_owned()),
            ("RNACOS_ENABLE_OPEN_API_AUTH", self.is_guarded.to_string()),
            ("RNACOS_INIT_ADMIN_USERNAME", USER.to_owned()),
            ("RNACOS_INIT_ADMIN_PASSWORD", PASSWORD.to_owned()),
        ];
        self.process.spawn(server("rnacos"), [] as [&str; 0], &variables);
    }

    /// Waits until it serves; false if it ended since a port was taken.
    async fn serves(&mut self) -> bool {
        let (address, is_guarded) = (self.main_address(), self.is_guarded);
        let is_ready = async || {
            let request = match is_guarded {
                // It serves before it knows whom.
                true => client()
                    .post(format!("http://{address}/nacos/v1/auth/login"))
                    .query(&[("username", USER), ("password", PASSWORD)]),
                false => client()
                    .get(format!("http://{address}/nacos/v1/ns/service/list?pageNo=1&pageSize=1")),
            };
            request.send().await.is_ok_and(|answer| answer.status().is_success())
        };
        self.process.serves(is_ready).await
    }
}

/// Writes a node by hand into the Nacos at a main address, with more of an instance's fields and of its
/// metadata. What is ephemeral and not written again is unhealthy after 15 s.
///
/// # Panics
/// When it is refused.
pub async fn put(
    main_address: &str,
    node: &Node,
    fields: &[(&str, &str)],
    metadata: &[(&str, &str)],
) {
    let mut all = node.metadata.clone();
    let own = [("micro-id", &*node.id), ("version", &*node.version)];
    for (key, value) in own.iter().chain(metadata) {
        all.insert((*key).to_owned(), (*value).to_owned());
    }
    let (ip, port) = node.address.rsplit_once(':').expect("host:port");
    let all = json!(all).to_string();
    let own = [("serviceName", &*node.service), ("ip", ip), ("port", port), ("metadata", &all)];
    let query: Vec<_> = own.iter().chain(fields).copied().collect();
    ask(main_address, Method::POST, "instance", &query).await;
}

/// The main address of a Nacos where gRPC is spoken at this one. Who signs in nowhere needs no more.
///
/// # Panics
/// When it is no `host:port`, or there is no main port to it.
pub fn main_address(grpc_address: &str) -> String {
    let (host, port) = grpc_address.rsplit_once(':').expect("host:port");
    let port: u16 = port.parse().expect("a port");
    format!("{host}:{}", port.checked_sub(TO_GRPC).expect("a port over 1000"))
}

async fn ask(main_address: &str, method: Method, what: &str, query: &[(&str, &str)]) -> String {
    let url = format!("http://{main_address}/nacos/v1/ns/{what}");
    let mut request = client().request(method.clone(), &url);
    if method == Method::POST {
        // No URL is as long as what there may be to write.
        let url = Url::parse_with_params(&url, query).expect("a URL");
        let form = url.query().unwrap_or_default().to_owned();
        request = request.header(header::CONTENT_TYPE, FORM).body(form);
    } else {
        request = request.query(query);
    }
    let answer = request.send().await.expect("rnacos is reached");
    let status = answer.status();
    let text = answer.text().await.expect("rnacos answers");
    assert!(status.is_success(), "{what}: {status}: {text}");
    text
}

const FORM: &str = "application/x-www-form-urlencoded";

impl Server for Nacos {
    const NAME: &'static str = "nacos";

    fn stopped() -> Self {
        Self::stopped()
    }

    /// Where gRPC is spoken: all but signing in goes there.
    fn address(&self) -> String {
        self.grpc_address()
    }

    fn url_at(&self, address: &str) -> String {
        let (_, port) = address.rsplit_once(':').expect("host:port");
        format!("{}?grpc_port={port}", self.url())
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

    async fn wipe(&mut self) -> Result<(), Cannot> {
        self.wipe().await;
        Ok(())
    }

    async fn remember(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn go_back(&mut self) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn lose(&self, _: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn delete(&self, node: &Node) -> Result<(), Cannot> {
        self.delete_instance(&node.service, &node.address).await;
        Ok(())
    }

    async fn overwrite(&self, node: &Node) -> Result<(), Cannot> {
        // One address is one record here. (Metadata by HTTP is an operator's, which rnacos gives to
        // whoever registers at the address from then on.)
        let registry = registry::open(&self.url()).expect("the URL is well-formed");
        let other = Node::new(&node.service, format!("not-{}", node.id), &node.address);
        registry.register(&other, Duration::from_secs(3600)).await.expect("another registers");
        self.others.lock().expect("nobody panicked").push(registry);
        Ok(())
    }

    async fn guarded() -> Result<Self, Cannot> {
        Err(Cannot)
    }

    async fn expire(&self) {}

    async fn renew(&self) {}
}
