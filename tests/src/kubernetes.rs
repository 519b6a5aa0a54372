//! A real kube-apiserver on a real etcd, for as long as a test needs it. There is no kubelet and no
//! controller: no pod runs, and nothing makes EndpointSlices of pods. The tests write both
//! themselves, in the sequence that kubelet and controller do.

mod faults;
mod namespace;

pub use namespace::{Namespace, Slice, Stage, endpoint};

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::KeyPair;
use serde_json::{Value as Json, json};
use tokio::sync::{Mutex, oneshot};

use crate::{
    etcd::{Etcd, Snapshot},
    ports,
    process::{self, Process},
    programs::server,
};

/// An API server on a loopback port of its own, which it keeps over restarts. Dropped, it is killed
/// and its data removed.
#[derive(Debug)]
pub struct Kubernetes {
    flags: Vec<String>,
    port: u16,
    etcd: Etcd,
    process: Process,
    remembered: Option<Snapshot>,
    /// Whether URLs are those of a service account, whose token ends with it.
    is_guarded: bool,
}

impl Kubernetes {
    /// A server, serving.
    ///
    /// # Panics
    /// When kube-apiserver or etcd is not there, or does not serve within a minute.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server started with these further flags, serving.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    pub async fn start_with(flags: &[&str]) -> Self {
        for _ in 0..3 {
            let mut kubernetes = Self::chosen(flags, Etcd::start().await);
            kubernetes.spawn();
            if kubernetes.serves().await {
                return kubernetes;
            }
        }
        panic!("kube-apiserver found its port taken three times over");
    }

    /// A server that is not started yet: [`Kubernetes::restart`] does.
    pub fn stopped() -> Self {
        Self::chosen(&[], Etcd::stopped())
    }

    fn chosen(flags: &[&str], etcd: Etcd) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let process = Process::stopped("kube-apiserver");
        let port = ports::free();
        let (remembered, is_guarded) = (None, false);
        let kubernetes = Self { flags, port, etcd, process, remembered, is_guarded };
        let key = KeyPair::generate().expect("a key");
        kubernetes.write("sa.key", &key.serialize_pem());
        kubernetes.write("sa.pub", &key.public_key_pem());
        kubernetes.write("tokens.csv", "admin-token,admin,1,system:masters\n");
        kubernetes.write_kubeconfig("admin", "admin-token");
        kubernetes
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.process.dir().join("admin.yaml")
    }

    /// The kubeconfig of whoever has this token, under this name; written over what was there.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        write_kubeconfig(self.process.dir(), self.port, name, &json!({ "token": token }))
    }

    /// Stops it where it is (SIGSTOP): its port still accepts, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Kills it (SIGKILL) and waits for its end. Its etcd stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and etcd, and waits until it serves. One that runs is
    /// killed first.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    pub async fn restart(&mut self) {
        self.kill();
        if !self.etcd.runs() {
            self.etcd.restart().await;
        }
        self.spawn();
        assert!(self.serves().await, "its port was taken while it was down");
    }

    /// Makes etcd forget all changes up to now.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub async fn compact(&self) {
        let mut etcd = self.etcd.client().await;
        let now = etcd.get("x", None).await.expect("etcd answers");
        let revision = now.header().expect("an answer has a header").revision();
        etcd.compact(revision, None).await.expect("etcd answers");
    }

    /// How many connections this process has to it.
    ///
    /// # Panics
    /// When the kernel's tables cannot be read.
    pub fn connections(&self) -> usize {
        process::connections(self.port)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.process.dir().join(name), text).expect("a file in the server's folder");
    }

    fn spawn(&mut self) {
        let dir = self.process.dir().display().to_string();
        let arguments = [
            ("--etcd-servers", format!("http://{}", self.etcd.address())),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--secure-port", self.port.to_string()),
            ("--cert-dir", format!("{dir}/certs")),
            // It need not exist; without it the server asks for a default route.
            ("--advertise-address", "10.1.0.4".to_owned()),
            ("--service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            ("--endpoint-reconciler-type", "none".to_owned()),
            ("--disable-admission-plugins", "ServiceAccount".to_owned()),
            ("--service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("--service-account-key-file", format!("{dir}/sa.pub")),
            ("--service-account-signing-key-file", format!("{dir}/sa.key")),
            ("--token-auth-file", format!("{dir}/tokens.csv")),
            ("--authorization-mode", "RBAC".to_owned()),
            ("--etcd-compaction-interval", "0".to_owned()),
        ];
        let arguments = arguments.iter().map(|(flag, value)| format!("{flag}={value}"));
        let arguments: Vec<_> = arguments.chain(self.flags.iter().cloned()).collect();
        self.process.spawn(server("kube-apiserver"), arguments, &[]);
    }

    /// Waits until it serves; false if it ended since its port was taken.
    async fn serves(&mut self) -> bool {
        let kubeconfig = self.kubeconfig();
        let is_ready = async || {
            // Its certificate is made at its first start.
            let Ok(client) = client(&kubeconfig).await else { return false };
            let namespaces = Api::<NamespaceObject>::all(client);
            namespaces.get("default").await.is_ok()
        };
        self.process.serves(is_ready).await
    }
}

/// A client with this kubeconfig, to look, write and delete by hand with.
///
/// # Errors
/// When it cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client, Box<dyn std::error::Error>> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn write_kubeconfig(dir: &Path, port: u16, name: &str, user: &Json) -> PathBuf {
    let cluster = json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority": dir.join("certs/apiserver.crt"),
    });
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "current-context": "test",
    });
    let path = dir.join(format!("{name}.yaml"));
    // JSON is YAML.
    fs::write(&path, kubeconfig.to_string()).expect("a file in the server's folder");
    path
}

/// A server that the tests of a program share, those that run at a time: its start takes seconds.
/// Nobody stops it or makes it forget.
#[derive(Debug)]
pub struct Shared {
    kubeconfig: PathBuf,
    port: u16,
    /// Lives on in a thread of its own, since a server ends with the thread that starts it.
    keeper: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Shared {
    /// The one there is, or a new one.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    pub async fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Shared>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(shared) = shared.upgrade() {
            return shared;
        }
        let (started, is_started) = oneshot::channel();
        let (stop, is_stopped) = oneshot::channel();
        let keeper = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let server = Kubernetes::start().await;
                let _ = started.send((server.kubeconfig(), server.port()));
                let _ = is_stopped.await;
            });
        });
        let (kubeconfig, port) = is_started.await.expect("the server starts");
        let new = Arc::new(Self { kubeconfig, port, keeper: Some((stop, keeper)) });
        *shared = Arc::downgrade(&new);
        new
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As [`Kubernetes::write_kubeconfig`].
    pub fn write_kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        self.write_kubeconfig_of(name, &json!({ "token": token }))
    }

    /// The same of a user, as a kubeconfig has it.
    ///
    /// # Panics
    /// As [`Kubernetes::write_kubeconfig`].
    pub fn write_kubeconfig_of(&self, name: &str, user: &Json) -> PathBuf {
        let dir = self.kubeconfig.parent().expect("a file in a folder");
        write_kubeconfig(dir, self.port, name, user)
    }

    /// A namespace that nobody else has.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn namespace(&self) -> Namespace {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Namespace::create(&self.kubeconfig, &name).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some((stop, keeper)) = self.keeper.take() {
            let _ = stop.send(());
            let _ = keeper.join();
        }
    }
}
