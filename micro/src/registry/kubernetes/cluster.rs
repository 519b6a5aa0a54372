//! The way to the API server: one client, and exchanges with it.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, StatusCode};
use kube::{
    Client, Config, Error as ClientError,
    client::{AuthError, Body, ConfigExt as _},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit, oneshot},
    time::timeout,
};
use tower::{ServiceBuilder, service_fn};

use super::{connections::Connections, options::Options};
use crate::Error;

/// How long an exchange may take, all its requests together.
pub(super) const EXCHANGE: Duration = Duration::from_secs(1);

/// How many exchanges of those who look for nodes go on at a time. A program that calls a thousand
/// services would else have all its reads wait behind each other, and most for longer than an exchange
/// lasts. One waits for its turn as long as for the exchange.
const AT_ONCE: usize = 32;

/// Where the rights are that a program needs, and those for records at pods.
const MANIFEST: &str = "deploy/kubernetes/rbac.yaml";
const MANIFEST_OF_RECORDS: &str = "deploy/kubernetes/rbac-records.yaml";

/// The API server, as one process and registry sees it.
#[derive(Debug)]
pub(super) struct Cluster {
    options: Options,
    held: Mutex<Option<Held>>,
    /// The client in the making, for as long as it takes: exchanges wait for it in turn, each as
    /// long as it lasts, and the first that sees its end takes it.
    making: tokio::sync::Mutex<Option<oneshot::Receiver<Result<Held, String>>>>,
    /// Whether that takes a program that the kubeconfig names, which may ask elsewhere.
    runs_program: AtomicBool,
    turns: Semaphore,
}

/// What no client has for its id.
const NO_CLIENT: u64 = 0;

#[derive(Clone)]
struct Held {
    /// Unlike that of any other client of this process.
    id: u64,
    client: Client,
}

/// What a role must allow for a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) resource: &'static str,
}

impl Right {
    /// A request that needs it.
    pub(super) async fn with<T>(
        self,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Failed> {
        request.await.map_err(|error| Failed { error, right: self })
    }
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failed {
    error: ClientError,
    right: Right,
}

impl Failed {
    /// What the server answered, if it did.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match &self.error {
            ClientError::Api(status) => StatusCode::from_u16(status.code).ok(),
            _ => None,
        }
    }
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) struct CallError {
    text: String,
    status: Option<StatusCode>,
}

impl CallError {
    /// What the server answered, if it did.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Whether a right is missing.
    pub(super) fn is_forbidden(&self) -> bool {
        self.status == Some(StatusCode::FORBIDDEN)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::registry(error.text)
    }
}

impl Cluster {
    pub(super) fn new(options: Options) -> Self {
        let (held, making, runs_program) = Default::default();
        Self { options, held, making, runs_program, turns: Semaphore::new(AT_ONCE) }
    }

    /// One whose client is this, until an exchange fails.
    #[cfg(test)]
    pub(super) fn with_client(options: Options, client: Client) -> Self {
        let cluster = Self::new(options);
        *cluster.held() = Some(Held { id: u64::MAX, client });
        cluster
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The turn for an exchange of which a program may have very many at once.
    pub(super) async fn turn(&self, what: &str) -> Result<SemaphorePermit<'_>, CallError> {
        match timeout(EXCHANGE, self.turns.acquire()).await {
            Ok(turn) => Ok(turn.expect("turns are never closed")),
            Err(_) => Err(self.refuse(
                what,
                &format!("others are still asking: its turn did not come within {EXCHANGE:?}"),
            )),
        }
    }

    /// One exchange with the server, bounded by [`EXCHANGE`]. It may run twice, the second time
    /// with a new client, so it must do no harm when repeated.
    pub(super) async fn call<T, F, Fut>(&self, what: &str, exchange: F) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Failed>>,
    {
        let fail = |why: &str, status| Err(CallError { status, ..self.refuse(what, why) });
        let used = AtomicU64::new(NO_CLIENT);
        match timeout(EXCHANGE, self.attempt(exchange, &used)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Setup(why))) => fail(&why, None),
            Ok(Err(Failure::Request(failed))) => fail(&self.describe(&failed), failed.status()),
            Err(_) => {
                // Whatever it hangs on, a new one does not. One that another exchange has made
                // meanwhile is left to it.
                let mut held = self.held();
                if held.as_ref().is_some_and(|held| held.id == used.load(Ordering::Relaxed)) {
                    *held = None;
                }
                drop(held);
                let is_made = self.making.try_lock().is_ok_and(|making| making.is_none());
                let why = match self.runs_program.load(Ordering::Relaxed) {
                    _ if is_made => "no answer",
                    true => "the kubeconfig's program for credentials has not ended",
                    false => "cluster and credentials are not read",
                };
                fail(&format!("{why} within {EXCHANGE:?}"), None)
            }
        }
    }

    /// The error for what cannot be done.
    pub(super) fn refuse(&self, what: &str, why: &str) -> CallError {
        let text = format!("{}: cannot {what}: {why}", self.options.name);
        CallError { text, status: None }
    }

    /// Tells in `used` whose client it is on.
    async fn attempt<T, F, Fut>(&self, exchange: F, used: &AtomicU64) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Failed>>,
    {
        loop {
            let (held, is_new) = self.client().await.map_err(Failure::Setup)?;
            used.store(held.id, Ordering::Relaxed);
            let failed = match exchange(held.client).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            // A token is read from its file once a minute, a certificate and a kubeconfig never
            // again: with what the server does not take, or take any more, a client begins anew.
            let is_answer =
                failed.status().is_some_and(|status| status != StatusCode::UNAUTHORIZED);
            if !is_answer {
                let mut current = self.held();
                if current.as_ref().is_some_and(|it| it.id == held.id) {
                    *current = None;
                }
            }
            if is_answer || is_new {
                return Err(Failure::Request(failed));
            }
        }
    }

    /// The client, and whether it is new.
    async fn client(&self) -> Result<(Held, bool), String> {
        if let Some(held) = self.held().clone() {
            return Ok((held, false));
        }
        let mut making = self.making.lock().await;
        if let Some(held) = self.held().clone() {
            return Ok((held, false));
        }
        let made = match &mut *making {
            Some(made) => made,
            none => {
                let config = self.options.config().await?;
                let runs_program = config.auth_info.exec.is_some();
                self.runs_program.store(runs_program, Ordering::Relaxed);
                none.insert(make(config)?)
            }
        };
        let made = made.await;
        *making = None;
        let held = made.map_err(|error| format!("no client can be made: {error}"))??;
        *self.held() = Some(held.clone());
        Ok((held, true))
    }

    /// The failure in words, with what a missing right needs.
    fn describe(&self, failed: &Failed) -> String {
        let Failed { error, right: Right { verb, resource } } = failed;
        match (failed.status(), error) {
            (Some(StatusCode::FORBIDDEN), ClientError::Api(status)) => {
                let manifest = match (*verb, *resource) {
                    ("list" | "watch", "pods") => MANIFEST_OF_RECORDS,
                    _ => MANIFEST,
                };
                format!(
                    "we may not {verb} {resource}: give the service account the role in {manifest}; \
                     the server says: {}",
                    status.message
                )
            }
            (Some(StatusCode::UNAUTHORIZED), _) => {
                "the server does not take our credentials: the token or certificate has expired or \
                 is another cluster's"
                    .to_owned()
            }
            _ => describe(error),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client. It waits for a program that the kubeconfig names, for ever if need be, since
/// another would hang as well. A thread of its own keeps neither the runtime's others from their work,
/// nor the process from its end.
fn make(config: Config) -> Result<oneshot::Receiver<Result<Held, String>>, String> {
    static IDS: AtomicU64 = AtomicU64::new(NO_CLIENT + 1);
    let (done, made) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("kubeconfig".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let _ = done.send(build(config).map(|client| Held { id, client }));
    });
    thread.map_err(|error| format!("no client can be made: {error}"))?;
    Ok(made)
}

/// kube's own stack, less what is not wanted here: it logs every failure as an error and tries
/// again by itself; and its connections, which may wait for ever and speak HTTP/1.1 alone.
fn build(config: Config) -> Result<Client, String> {
    // rustls wants one for the process when more than one are built in, and kube asks for that.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // One that was faster serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let connections = Connections::new(&config).map_err(|error| describe(&error))?;
    let connections = Arc::new(connections);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|error| describe(&error))?)
        .layer(config.extra_headers_layer().map_err(|error| describe(&error))?)
        .service(service_fn(move |request: Request<Body>| {
            let connections = connections.clone();
            async move { connections.send(request).await }
        }));
    Ok(Client::new(service, config.default_namespace))
}

enum Failure {
    /// There is no client.
    Setup(String),
    Request(Failed),
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The error in words, causes included.
pub(super) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::Api(status) => format!("{} ({})", status.message, status.code),
        ClientError::Auth(error) => sources(error),
        ClientError::Service(error) => sources(&**error),
        error => sources(error),
    }
}

fn sources(error: &(dyn StdError + 'static)) -> String {
    // These quote what the program said, the token with it.
    match error.downcast_ref() {
        Some(AuthError::AuthExecRun { out, .. }) => {
            return format!("the kubeconfig's program for credentials failed: {}", out.status);
        }
        Some(AuthError::AuthExecParse(_)) => {
            return "the kubeconfig's program for credentials said what is no ExecCredential"
                .to_owned();
        }
        _ => {}
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, fs, future::pending, path::Path};

    use http::Response;

    use super::{super::super::url::Url, *};

    const GET: Right = Right { verb: "get", resource: "pods" };

    fn silent() -> Cluster {
        let service =
            service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        Cluster::with_client(Options::of_nowhere(), Client::new(service, "shop"))
    }

    async fn ask(client: Client) -> Result<(), Failed> {
        let request = Request::get("/version").body(Vec::new()).expect("a request");
        GET.with(client.request_text(request)).await.map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_an_answer_is_not_asked_again() {
        let cluster = silent();
        let error = cluster.call("ask", ask).await.unwrap_err();
        assert_eq!(error.to_string(), "kubernetes://shop: cannot ask: no answer within 1s");
        assert!(cluster.held().is_none(), "its connections go with the client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_made_for_an_exchange_goes_with_it() {
        let cluster = silent();
        let held = cluster.held().take().unwrap();
        let (done, made) = oneshot::channel();
        *cluster.making.lock().await = Some(made);
        assert!(done.send(Ok(held)).is_ok());
        cluster.call("ask", ask).await.unwrap_err();
        assert!(cluster.held().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_another_has_made_meanwhile_is_left_to_it() {
        let cluster = silent();
        let asked = async {
            let client = cluster.held().as_ref().unwrap().client.clone();
            *cluster.held() = Some(Held { id: 7, client });
        };
        let (failed, ()) = tokio::join!(cluster.call("ask", ask), asked);
        failed.unwrap_err();
        assert_eq!(cluster.held().as_ref().map(|held| held.id), Some(7));
    }

    /// With a kubeconfig whose credentials come from this script.
    fn with_program(dir: &Path, script: &str) -> Cluster {
        let program = serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh", "args": ["-c", script], "interactiveMode": "Never",
        });
        let kubeconfig = serde_json::json!({
            "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:1" } }],
            "users": [{ "name": "u", "user": { "exec": program } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "c",
        });
        let file = dir.join("kubeconfig");
        fs::write(&file, kubeconfig.to_string()).unwrap();
        let url = format!("kubernetes://shop?kubeconfig={}", file.display());
        Cluster::new(Options::of(&Url::parse(&url).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn what_a_program_says_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        for (script, said) in [
            ("echo warning; echo '{\"token\": \"s3cret\"}'", "said what is no ExecCredential"),
            ("echo '{\"status\": \"s3cret\"}'", "said what is no ExecCredential"),
            ("echo s3cret; exit 3", "failed: exit status: 3"),
        ] {
            let error = with_program(dir.path(), script).call("ask", ask).await.unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("program for credentials {said}")), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_fails_and_leaves_the_client_alone() {
        let cluster = silent();
        let turns = cluster.turns.acquire_many(AT_ONCE as u32).await.unwrap();
        let error = cluster.turn("ask").await.unwrap_err();
        assert!(error.to_string().contains("its turn did not come within 1s"), "{error}");
        assert!(cluster.held().is_some());
        drop(turns);
        drop(cluster.turn("ask").await.expect("its turn"));
    }
}
