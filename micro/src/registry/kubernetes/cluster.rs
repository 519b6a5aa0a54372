//! The way to the API server: one client, and exchanges with it.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http::StatusCode;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config, Error as ClientError,
    client::{AuthError, Body, ConfigExt as _},
};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle, time::timeout};
use tower::{BoxError, ServiceBuilder};

use super::options::Options;
use crate::Error;

/// How long an exchange may take, all its requests together.
pub(super) const EXCHANGE: Duration = Duration::from_secs(1);

/// How long making a client may take: a kubeconfig may name a program that asks elsewhere for the
/// credentials. It goes on beside the exchanges, which wait for it as long as they last.
const CONNECT: Duration = Duration::from_secs(30);

/// A connection without a byte for this long is asked, by TCP, whether its peer is still there, and
/// given up after three questions without an answer: a watch that was cut off ends within 20 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

/// Where the rights are that a program needs, and those for records at pods.
const MANIFEST: &str = "deploy/kubernetes/rbac.yaml";
const MANIFEST_OF_RECORDS: &str = "deploy/kubernetes/rbac-records.yaml";

/// The API server, as one process and registry sees it.
#[derive(Debug)]
pub(super) struct Cluster {
    options: Options,
    held: Mutex<Option<Held>>,
    /// The client in the making: exchanges wait for it in turn, and the first that sees its end
    /// takes it.
    connecting: tokio::sync::Mutex<Option<JoinHandle<Result<Held, String>>>>,
}

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
        Self { options, held: Mutex::default(), connecting: tokio::sync::Mutex::default() }
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

    /// One exchange with the server, bounded by [`EXCHANGE`]. It may run twice, the second time
    /// with a new client, so it must do no harm when repeated.
    pub(super) async fn call<T, F, Fut>(&self, what: &str, exchange: F) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Failed>>,
    {
        let fail = |why: &str, status| Err(CallError { status, ..self.refuse(what, why) });
        let id = |held: &Option<Held>| held.as_ref().map(|held| held.id);
        let before = id(&self.held());
        match timeout(EXCHANGE, self.attempt(exchange)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Setup(why))) => fail(&why, None),
            Ok(Err(Failure::Request(failed))) => fail(&self.describe(&failed), failed.status()),
            Err(_) => {
                // Whatever it hangs on, a new one does not. One that another exchange has made
                // meanwhile is left to it.
                let mut held = self.held();
                if id(&held) == before {
                    *held = None;
                }
                drop(held);
                if self.connecting.try_lock().map_or(true, |connecting| connecting.is_some()) {
                    let why = "the credentials are still being asked for";
                    return fail(&format!("{why} after {EXCHANGE:?}"), None);
                }
                fail(&format!("no answer within {EXCHANGE:?}"), None)
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
        let mut connecting = self.connecting.lock().await;
        if let Some(held) = self.held().clone() {
            return Ok((held, false));
        }
        let options = &self.options;
        let made = connecting.get_or_insert_with(|| tokio::spawn(connect(options.clone()))).await;
        *connecting = None;
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

async fn connect(options: Options) -> Result<Held, String> {
    static IDS: AtomicU64 = AtomicU64::new(0);
    let config = options.config().await?;
    // It waits for a program that the kubeconfig names. A thread of its own keeps neither the runtime's
    // others from their work, nor the process from its end.
    let (done, building) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("kubeconfig".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        let _ = done.send(build(config));
    });
    thread.map_err(|error| format!("no client can be made: {error}"))?;
    match timeout(CONNECT, building).await {
        Ok(built) => {
            let client = built.map_err(|error| format!("no client can be made: {error}"))??;
            Ok(Held { id: IDS.fetch_add(1, Ordering::Relaxed), client })
        }
        Err(_) => {
            Err(format!("the kubeconfig's program for credentials has not ended after {CONNECT:?}"))
        }
    }
}

/// kube's own stack, less what is not wanted here: it logs every failure as an error and tries
/// again by itself, and its connections may wait for ever.
fn build(config: Config) -> Result<Client, String> {
    // rustls wants one for the process when more than one are built in, and kube asks for that.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // One that was faster serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(EXCHANGE));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_RETRY));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    let connector = config
        .rustls_https_connector_with_connector(connector)
        .map_err(|error| describe(&error))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|error| describe(&error))?)
        .layer(config.extra_headers_layer().map_err(|error| describe(&error))?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector));
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
        // It quotes all that the program said, the token with it.
        ClientError::Auth(AuthError::AuthExecRun { out, .. }) => {
            format!("the kubeconfig's program for credentials failed: {}", out.status)
        }
        ClientError::Service(error) => sources(&**error),
        error => sources(error),
    }
}

fn sources(error: &(dyn StdError + 'static)) -> String {
    if let Some(AuthError::AuthExecRun { out, .. }) = error.downcast_ref() {
        return format!("the kubeconfig's program for credentials failed: {}", out.status);
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
