//! The way to the API server: one client, and exchanges with it.

use std::{
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
    client::{Body, ConfigExt as _},
};
use tokio::{
    runtime::Handle,
    sync::{
        Semaphore, SemaphorePermit,
        oneshot::{self, error::TryRecvError},
    },
    time::timeout,
};
use tower::{ServiceBuilder, service_fn};

use super::{
    super::causes::with_causes, connections::Connections, credentials::Credentials,
    options::Options,
};
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
    /// What the kubeconfig's program gave last, for as long as the server takes it.
    credentials: Mutex<Option<Credentials>>,
    /// The client in the making, for as long as it takes: exchanges wait for it in turn, each as
    /// long as it lasts, and the first that sees its end takes it.
    making: tokio::sync::Mutex<Option<Making>>,
    /// Whether that takes a program that the kubeconfig names, which may ask elsewhere.
    runs_program: AtomicBool,
    turns: Semaphore,
}

type Making = oneshot::Receiver<Result<(Held, Option<Credentials>), String>>;

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
        let (held, credentials, making, runs_program) = Default::default();
        Self { options, held, credentials, making, runs_program, turns: Semaphore::new(AT_ONCE) }
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
        match timeout(EXCHANGE, self.attempt(exchange)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Setup(why))) => fail(&why, None),
            Ok(Err(Failure::Request(failed))) => fail(&self.describe(&failed), failed.status()),
            Err(_) => {
                let why = match self.runs_program.load(Ordering::Relaxed) {
                    _ if self.held().is_some() => "no answer",
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

    async fn attempt<T, F, Fut>(&self, exchange: F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Failed>>,
    {
        loop {
            let (held, is_new) = self.client().await.map_err(Failure::Setup)?;
            let failed = match exchange(held.client).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            // A token is read from its file once a minute, a certificate and a kubeconfig never
            // again: with what the server does not take, or take any more, a client begins anew.
            let is_answer =
                failed.status().is_some_and(|status| status != StatusCode::UNAUTHORIZED);
            if !is_answer {
                self.leave(held.id, failed.status().is_some());
            }
            if is_answer || is_new {
                return Err(Failure::Request(failed));
            }
        }
    }

    /// Leaves a client, unless another was made meanwhile; and credentials that the server has refused
    /// or may have.
    fn leave(&self, id: u64, is_refused: bool) {
        let mut held = self.held();
        if held.as_ref().is_some_and(|held| held.id == id) {
            *held = None;
            let mut credentials = self.credentials();
            *credentials = credentials.take().filter(|it| !is_refused && !it.are_certificate());
        }
    }

    /// The client, and whether it is new.
    async fn client(&self) -> Result<(Held, bool), String> {
        if self.held().is_some() && self.credentials().as_ref().is_some_and(Credentials::are_due) {
            self.renew().await;
        }
        if let Some(held) = self.held().clone() {
            return Ok((held, false));
        }
        let mut making = self.making.lock().await;
        if let Some(held) = self.held().clone() {
            return Ok((held, false));
        }
        let made = match &mut *making {
            Some(made) => made,
            none => none.insert(self.make().await?),
        };
        let made = made.await;
        *making = None;
        let (held, credentials) =
            made.map_err(|error| format!("no client can be made: {error}"))??;
        self.take(held.clone(), credentials);
        Ok((held, true))
    }

    /// Sees to a client with new credentials, and does not wait for it: the old one serves until then.
    async fn renew(&self) {
        // Another sees to it, or waits for one.
        let Ok(mut making) = self.making.try_lock() else { return };
        let failed = match &mut *making {
            none @ None => match self.make().await {
                Ok(made) => {
                    *none = Some(made);
                    return;
                }
                Err(why) => why,
            },
            Some(made) => match made.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(Ok((held, credentials))) => {
                    *making = None;
                    return self.take(held, credentials);
                }
                Ok(Err(why)) => why,
                Err(closed) => closed.to_string(),
            },
        };
        *making = None;
        tracing::debug!("kubernetes: no new credentials yet: {failed}");
        if let Some(credentials) = &mut *self.credentials() {
            credentials.postpone();
        }
    }

    fn take(&self, held: Held, credentials: Option<Credentials>) {
        *self.held() = Some(held);
        *self.credentials() = credentials;
    }

    /// Begins to make a client, with credentials that are there if they are not due.
    async fn make(&self) -> Result<Making, String> {
        let config = self.options.config().await?;
        let program = Credentials::program(&config.auth_info)?;
        let known = self.credentials().clone();
        let known = known.filter(|it| !it.are_due() && program.is_some_and(|of| it.are_of(of)));
        self.runs_program.store(program.is_some() && known.is_none(), Ordering::Relaxed);
        make(config, known)
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

    /// Only locked behind that of the client, if both are.
    fn credentials(&self) -> MutexGuard<'_, Option<Credentials>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client. It waits for a program that the kubeconfig names, for ever if need be, since
/// another would hang as well. A thread of its own keeps neither the runtime's others from their work,
/// nor the process from its end.
fn make(config: Config, known: Option<Credentials>) -> Result<Making, String> {
    static IDS: AtomicU64 = AtomicU64::new(1);
    let (done, made) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("kubeconfig".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let made = signed_in(config, known)
            .and_then(|(config, credentials)| Ok((build(config)?, credentials)))
            .map(|(client, credentials)| (Held { id, client }, credentials));
        let _ = done.send(made);
    });
    thread.map_err(|error| format!("no client can be made: {error}"))?;
    Ok(made)
}

/// The config with what the program gave in the place of the program, if it names one.
fn signed_in(
    mut config: Config,
    known: Option<Credentials>,
) -> Result<(Config, Option<Credentials>), String> {
    let credentials = match (Credentials::program(&config.auth_info)?, known) {
        (None, _) => {
            // kube would run it, and quote what it says.
            config.auth_info.exec = None;
            return Ok((config, None));
        }
        (Some(_), Some(known)) => known,
        (Some(program), None) => Credentials::ask(program)?,
    };
    credentials.put(&mut config.auth_info);
    Ok((config, Some(credentials)))
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
        ClientError::Service(error) => with_causes(&**error),
        error => with_causes(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, fs, future::pending, path::Path};

    use http::Response;
    use tokio::time;

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
    async fn an_exchange_that_takes_too_long_leaves_the_client_to_others() {
        let cluster = silent();
        let error = cluster.call("ask", ask).await.unwrap_err();
        assert_eq!(error.to_string(), "kubernetes://shop: cannot ask: no answer within 1s");
        assert!(cluster.held().is_some());
    }

    #[tokio::test]
    async fn a_client_that_another_has_made_meanwhile_is_left_to_it() {
        let cluster = silent();
        cluster.leave(7, true);
        assert!(cluster.held().is_some());
        cluster.leave(u64::MAX, true);
        assert!(cluster.held().is_none());
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
            ("echo '{\"status\": {\"note\": \"s3cret\"}}'", "gave neither a token nor"),
            ("echo s3cret; exit 3", "failed: exit status: 3"),
        ] {
            let error = with_program(dir.path(), script).call("ask", ask).await.unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("program for credentials {said}")), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    /// Runs of the program so far.
    fn runs(dir: &Path) -> usize {
        fs::read_to_string(dir.join("runs")).map_or(0, |runs| runs.lines().count())
    }

    #[tokio::test]
    async fn a_server_that_is_away_or_refuses_once_costs_no_run_of_the_program_more_than_it_must() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            r#"echo >>{}/runs; echo '{{"status": {{"token": "s3cret"}}}}'"#,
            dir.path().display()
        );
        let cluster = with_program(dir.path(), &script);
        for _ in 0..3 {
            // Nobody listens there.
            cluster.call("ask", ask).await.unwrap_err();
        }
        assert!(cluster.held().is_none(), "the kubeconfig is read anew");
        assert_eq!(runs(dir.path()), 1, "what the program gave is still good");
        let (held, _) = cluster.client().await.unwrap();
        cluster.leave(held.id, true);
        cluster.client().await.unwrap();
        assert_eq!(runs(dir.path()), 2, "the server has refused the first");
    }

    #[tokio::test]
    async fn a_program_that_hangs_at_a_refresh_leaves_the_old_credentials_and_runs_once() {
        let dir = tempfile::tempdir().unwrap();
        // An hour's token each; the second run hangs until it may go on.
        let script = format!(
            r#"cd {}; echo >>runs
            if [ $(wc -l <runs) = 2 ]; then until [ -e go ]; do sleep 0.05; done; fi
            end=$(date -u -d '+1 hour' +%FT%TZ)
            echo "{{\"status\": {{\"token\": \"t\", \"expirationTimestamp\": \"$end\"}}}}""#,
            dir.path().display()
        );
        let cluster = with_program(dir.path(), &script);
        let (first, _) = cluster.client().await.unwrap();
        assert!(!cluster.credentials().as_ref().unwrap().are_due());
        time::pause();
        time::advance(Duration::from_secs(3600)).await;
        for _ in 0..3 {
            let (held, is_new) = cluster.client().await.unwrap();
            assert_eq!((held.id, is_new), (first.id, false), "the old one serves on");
        }
        time::resume();
        // As with a refusal: who has no client waits for the one that is in the making.
        cluster.leave(first.id, true);
        let error = cluster.call("ask", ask).await.unwrap_err().to_string();
        assert!(error.contains("program for credentials has not ended within 1s"), "{error}");
        assert_eq!(runs(dir.path()), 2, "one that hangs has no second beside it");
        fs::write(dir.path().join("go"), "").unwrap();
        let (second, is_new) = cluster.client().await.unwrap();
        assert!(is_new && second.id != first.id);
        assert_eq!(runs(dir.path()), 2);
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
