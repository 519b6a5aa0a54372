//! A real Consul agent, for as long as a test needs it.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    ports,
    process::{self, Process},
    programs::server,
};

/// An agent on loopback ports of its own, which it keeps over restarts. Dropped, it is killed and
/// its data removed.
///
/// A single one is its own server and keeps the catalog in memory: after a restart it knows the
/// services that were registered with it, and Consul's index begins anew.
#[derive(Debug)]
pub struct Consul {
    options: Options,
    name: &'static str,
    http_port: u16,
    lan_port: u16,
    server_port: u16,
    /// The members to join; none for a single one.
    join: Vec<u16>,
    /// Data folders so far: a wiped agent has a new one.
    data: usize,
    process: Process,
}

/// How an agent is started, beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further flags.
    pub flags: Vec<String>,
    /// Whether it speaks TLS on its port; the flags name the certificates.
    pub tls: bool,
    /// The token that the harness itself uses.
    pub token: Option<String>,
}

impl Options {
    /// With this configuration, in Consul's language.
    pub fn hcl(text: &str) -> Self {
        Self { flags: vec!["-hcl".to_owned(), text.to_owned()], ..Self::default() }
    }
}

impl Consul {
    /// A single agent, serving.
    ///
    /// # Panics
    /// When Consul is not there, or does not serve.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// A single agent started with these options, serving.
    ///
    /// # Panics
    /// As [`Consul::start`].
    pub async fn start_with(options: Options) -> Self {
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            let mut consul = Self::chosen("n1", options.clone());
            consul.spawn();
            if consul.serves().await {
                return consul;
            }
        }
        panic!("Consul found its ports taken three times over");
    }

    /// An agent that is not started yet: [`Consul::restart`] does.
    pub fn stopped() -> Self {
        Self::chosen("n1", Options::default())
    }

    /// Three servers of one cluster, serving.
    ///
    /// # Panics
    /// As [`Consul::start`].
    pub async fn cluster() -> [Self; 3] {
        for _ in 0..3 {
            let mut members = ["n1", "n2", "n3"].map(|name| Self::chosen(name, Options::default()));
            let ports = members.each_ref().map(|member| member.lan_port);
            for member in &mut members {
                member.join = ports.to_vec();
                member.spawn();
            }
            let mut all_serve = true;
            for member in &mut members {
                all_serve &= member.serves().await;
            }
            if all_serve {
                return members;
            }
        }
        panic!("Consul found its ports taken three times over");
    }

    fn chosen(name: &'static str, options: Options) -> Self {
        Self {
            options,
            name,
            http_port: ports::free(),
            lan_port: ports::free(),
            server_port: ports::free(),
            join: Vec::new(),
            data: 0,
            process: Process::stopped("Consul"),
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        format!("consul://{}", self.address())
    }

    /// `127.0.0.1:PORT`, where clients are served.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    /// The port where clients are served.
    pub fn port(&self) -> u16 {
        self.http_port
    }

    /// Where the servers speak to each other.
    pub fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.server_port)
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.process.dir().join(name)
    }

    /// What it answers to a GET.
    ///
    /// # Panics
    /// When it does not answer in JSON.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(reqwest::Method::GET, path, None).await;
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("GET {path}: {answer}"))
    }

    /// Writes or deletes by hand, and returns the answer.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn put(&self, path: &str, body: Value) -> String {
        self.request(reqwest::Method::PUT, path, Some(body)).await
    }

    async fn request(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> String {
        let url = format!("http://{}{path}", self.address());
        let mut request = client().request(method, url);
        if let Some(token) = &self.options.token {
            request = request.header("x-consul-token", token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.expect("Consul is reached");
        let status = answer.status();
        let text = answer.text().await.expect("Consul answers");
        assert!(status.is_success(), "{path}: {status}: {text}");
        text
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
    /// As [`Consul::start`].
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.serves().await, "Consul's ports were taken while it was down");
    }

    /// Kills it and starts it on the same ports with nothing in it.
    ///
    /// # Panics
    /// As [`Consul::start`].
    pub async fn wipe(&mut self) {
        self.kill();
        self.data += 1;
        self.restart().await;
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.http_port)
    }

    fn spawn(&mut self) {
        let data_dir = self.process.dir().join(format!("data-{}", self.data));
        let (http, https) = match self.options.tls {
            true => ("-1".to_owned(), self.http_port.to_string()),
            false => (self.http_port.to_string(), "-1".to_owned()),
        };
        let arguments = [
            ["-node", self.name],
            ["-bind", "127.0.0.1"],
            ["-client", "127.0.0.1"],
            ["-data-dir", &data_dir.display().to_string()],
            ["-http-port", &http],
            ["-https-port", &https],
            ["-serf-lan-port", &self.lan_port.to_string()],
            ["-serf-wan-port", "-1"],
            ["-server-port", &self.server_port.to_string()],
            ["-dns-port", "-1"],
            ["-grpc-port", "-1"],
            ["-grpc-tls-port", "-1"],
            ["-log-level", "warn"],
            // An agent's own bound of what one address may ask is no part of the tests.
            ["-hcl", "disable_update_check = true performance { raft_multiplier = 1 }"],
        ]
        .map(|pair| pair.map(str::to_owned));
        let mut flags: Vec<String> = arguments.into_iter().flatten().collect();
        flags.push("-disable-host-node-id".to_owned());
        if self.join.is_empty() {
            flags.push("-dev".to_owned());
        } else {
            flags.extend(["-server", "-bootstrap-expect", "3"].map(str::to_owned));
            flags.extend(["-hcl", r#"retry_interval = "500ms""#].map(str::to_owned));
            let others = self.join.iter().filter(|port| **port != self.lan_port);
            flags.extend(
                others.flat_map(|port| ["-retry-join".to_owned(), format!("127.0.0.1:{port}")]),
            );
        }
        flags.extend(self.options.flags.iter().cloned());
        let arguments = ["agent".to_owned()].into_iter().chain(flags);
        self.process.spawn(server("consul"), arguments, &[]);
    }

    /// Waits until it serves and its cluster has a leader; false if it ended since a port was taken.
    async fn serves(&mut self) -> bool {
        let url = format!("http://{}/v1/health/service/consul?passing", self.address());
        let (token, port, is_tls) = (self.options.token.clone(), self.http_port, self.options.tls);
        let is_ready = async || {
            if is_tls {
                // Whoever has the certificates asks more.
                return tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
            }
            let mut request = client().get(&url);
            if let Some(token) = &token {
                request = request.header("x-consul-token", token);
            }
            match request.send().await {
                Ok(answer) => answer.text().await.is_ok_and(|text| text.contains("\"Node\"")),
                Err(_) => false,
            }
        };
        self.process.serves(is_ready).await
    }
}

/// A client to look, write and delete by hand with. It keeps no connection: those to Consul are
/// counted.
///
/// # Panics
/// When it cannot be made.
pub fn client() -> reqwest::Client {
    let config = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .expect("ring has the usual versions")
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
        .expect("a client")
}
