//! A link to a server that can be cut, silenced and slowed: toxiproxy.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    ports,
    process::{self, Process},
    programs::server,
};

/// A port of the loopback interface behind which a server is. Dropped, it refuses.
#[derive(Debug)]
pub struct Link {
    /// `127.0.0.1:PORT`, where the server is reached through it.
    pub address: String,
    control: u16,
    _process: Process,
}

impl Link {
    /// A good link to a server at this address.
    ///
    /// # Panics
    /// When toxiproxy is not there or does not serve.
    pub async fn to(upstream: &str) -> Self {
        for _ in 0..3 {
            let (control, port) = (ports::free(), ports::free());
            let mut process = Process::stopped("toxiproxy");
            let arguments = ["-host", "127.0.0.1", "-port", &control.to_string()];
            process.spawn(server("toxiproxy-server"), arguments, &[]);
            if !process.serves(async || process::get(control, "/version").await.is_ok()).await {
                continue;
            }
            let address = format!("127.0.0.1:{port}");
            let link = Self { address, control, _process: process };
            let proxy = json!({
                "name": "link", "listen": link.address, "upstream": upstream, "enabled": true
            });
            link.post("/proxies", &proxy).await;
            return link;
        }
        panic!("toxiproxy found its ports taken three times over");
    }

    /// Closes what is open and refuses what comes, until it is [mended](Self::mend).
    ///
    /// # Panics
    /// When toxiproxy does not answer.
    pub async fn cut(&self) {
        self.post("/proxies/link", &json!({ "enabled": false })).await;
    }

    /// Carries nothing any more, either way, and says nothing of it.
    ///
    /// # Panics
    /// As [`Link::cut`].
    pub async fn silence(&self) {
        for stream in ["upstream", "downstream"] {
            self.toxic(stream, "timeout", &json!({ "timeout": 0 })).await;
        }
    }

    /// Takes so much longer for every answer.
    ///
    /// # Panics
    /// As [`Link::cut`].
    pub async fn slow(&self, by: Duration) {
        let latency = json!({ "latency": by.as_millis() as u64 });
        self.toxic("downstream", "latency", &latency).await;
    }

    /// Is as it was at first.
    ///
    /// # Panics
    /// As [`Link::cut`].
    pub async fn mend(&self) {
        self.post("/reset", &json!({})).await;
    }

    async fn toxic(&self, stream: &str, kind: &str, attributes: &Value) {
        let toxic = json!({ "type": kind, "stream": stream, "attributes": attributes });
        self.post("/proxies/link/toxics", &toxic).await;
    }

    async fn post(&self, path: &str, body: &Value) {
        let answer = process::post(self.control, path, &body.to_string()).await;
        let answer = answer.expect("toxiproxy answers");
        let is_good = answer.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2'));
        assert!(is_good, "{path}: {answer}");
    }
}
