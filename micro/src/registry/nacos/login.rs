//! Signing in, by HTTP: everything else is gRPC.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nacos_sdk::api::plugin::{AuthContext, AuthPlugin, LoginIdentityContext, RequestResource};
use serde::Deserialize;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{super::causes::with_causes, failure::Failure};

/// The bound of one attempt that nobody waits for.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long an exchange waits for another token while its own may be good still.
const REPLACING: Duration = Duration::from_millis(300);

/// The longest answer taken, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What the client is told to add to each request. It takes the place of the SDK's own plugin, which
/// puts the password into the URL and, where that fails, into the log.
pub(super) struct Login {
    /// `host:port` of the server's main port.
    server: String,
    user: Option<(String, String)>,
    token: Mutex<Option<Token>>,
    /// Held while one asks: what was answered last, and how many answers there were.
    asking: tokio::sync::Mutex<Result<(), Failure>>,
    answers: AtomicU64,
    /// The SDK's own, which lives as long as the process.
    runtime: OnceLock<Handle>,
    is_started: AtomicBool,
    is_over: AtomicBool,
}

struct Token {
    text: String,
    /// When it is due to be replaced.
    due: Instant,
    ends: Instant,
    /// Something was refused with it.
    is_doubted: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    /// In seconds.
    token_ttl: u64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Login {
    pub(super) fn new(server: String, user: Option<(String, String)>) -> Self {
        Self {
            server,
            user,
            token: Mutex::new(None),
            asking: tokio::sync::Mutex::new(Ok(())),
            answers: AtomicU64::new(0),
            runtime: OnceLock::new(),
            is_started: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// Signs in, if somebody is to and has no token that is good still. One that Nacos may have refused
    /// is replaced first, and used on where no other can be had soon.
    ///
    /// # Errors
    /// `Denied` or `Refused` where Nacos says no, `Broken` where it says nothing; without the password.
    pub(super) async fn ensure(self: &Arc<Self>) -> Result<(), Failure> {
        let now = Instant::now();
        let doubted = match &mut *self.token() {
            Some(token) if token.ends > now => {
                // Of all that come now the first alone asks.
                if !std::mem::take(&mut token.is_doubted) {
                    return Ok(());
                }
                Some(token.text.clone())
            }
            token => {
                *token = None;
                None
            }
        };
        let Some(doubted) = doubted else { return self.sign_in().await };
        // Beside the exchange, if it takes longer: the connection is well where the main port may not be.
        let login = self.clone();
        let replaced = tokio::spawn(async move { login.replace(&doubted).await });
        match timeout(REPLACING, replaced).await {
            Ok(Ok(answer)) => answer,
            _ => Ok(()),
        }
    }

    /// Signs in for a token that may be good: that is used on, unless its user is denied.
    async fn replace(&self, doubted: &str) -> Result<(), Failure> {
        match timeout(ATTEMPT, self.sign_in()).await {
            Ok(Err(denied @ Failure::Denied(_))) => {
                self.token().take_if(|token| token.text == doubted);
                Err(denied)
            }
            _ => Ok(()),
        }
    }

    /// Signs in anew, if half of the token's time is over: it is looked at every 30 s.
    async fn refresh(&self) -> Result<(), Failure> {
        let is_due = self.token().as_ref().is_none_or(|token| token.due <= Instant::now());
        if is_due { self.sign_in().await } else { Ok(()) }
    }

    /// Asks for a token, if there is somebody to sign in. Whoever comes while one asks takes its answer.
    async fn sign_in(&self) -> Result<(), Failure> {
        let Some((user, password)) = &self.user else { return Ok(()) };
        let before = self.answers.load(Ordering::Relaxed);
        let mut last = self.asking.lock().await;
        if self.answers.load(Ordering::Relaxed) == before {
            let start = Instant::now();
            *last = self.ask(user, password).await.map(|answer| {
                // A hundred days and more are as good as for ever.
                let ttl = Duration::from_secs(answer.token_ttl.min(1 << 24));
                *self.token() = Some(Token {
                    text: answer.access_token,
                    due: start + ttl / 2,
                    ends: start + ttl,
                    is_doubted: false,
                });
            });
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        last.clone()
    }

    async fn ask(&self, user: &str, password: &str) -> Result<Answer, Failure> {
        let refused = |why: String| Failure::Refused(format!("cannot sign in: {why}"));
        let broken = |why: String| Failure::Broken(format!("cannot sign in: {why}"));
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", user)
            .append_pair("password", password)
            .finish();
        let request = Request::post(format!("http://{}/nacos/v1/auth/login", self.server))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| refused(error.to_string()))?;
        // Made anew each time: its connections would belong to whichever runtime was first.
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.map_err(|error| broken(with_causes(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(200).collect();
            let why = format!("{status}: {}", text.escape_debug());
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Failure::Denied(format!("cannot sign in: {why}"))
                }
                status if status.is_server_error() => broken(why),
                _ => refused(why),
            });
        }
        serde_json::from_slice(&body).map_err(|_| broken("the answer is not Nacos's".to_owned()))
    }

    /// The token may be worth nothing: the next [`ensure`](Self::ensure) asks for another.
    pub(super) fn doubt(&self) {
        if let Some(token) = &mut *self.token() {
            token.is_doubted = true;
        }
    }

    /// Nobody needs it any more. (The SDK asks for ever.)
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// A runtime that lives as long as the process, if there is one.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned().or_else(|| Handle::try_current().ok())
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuthPlugin for Login {
    /// Called once within the making of a client, and every 30 s in the SDK's own runtime after that.
    fn login<'a, 'b>(
        &'a self,
        _: Arc<Vec<String>>,
        _: Arc<AuthContext>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {
            if !self.is_started.swap(true, Ordering::Relaxed) {
                return;
            }
            let _ = self.runtime.set(Handle::current());
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let why = match timeout(ATTEMPT, self.refresh()).await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => format!("cannot sign in: no answer within {ATTEMPT:?}"),
            };
            warn!(server = self.server, "nacos: {why}");
        })
    }

    fn get_login_identity(&self, _: RequestResource) -> LoginIdentityContext {
        match &*self.token() {
            Some(token) => LoginIdentityContext::default().add_context("accessToken", &token.text),
            None => LoginIdentityContext::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
        time::sleep,
    };

    use super::*;

    /// A server that answers every time after `pause`, and how often it did.
    async fn counting(pause: Duration, ttl: u64) -> (String, Arc<AtomicU64>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(pause).await;
                let body = format!(r#"{{"accessToken":"t{number}","tokenTtl":{ttl}}}"#);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
                let answer = format!("{head}connection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, count, server)
    }

    fn token(login: &Login) -> Option<String> {
        login.token().as_ref().map(|token| token.text.clone())
    }

    #[tokio::test]
    async fn of_all_who_need_a_token_one_asks() {
        let (server, count, _) = counting(Duration::from_millis(100), 18_000).await;
        let login = login(server);
        let all = futures_util::future::join_all((0..50).map(|_| login.ensure())).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(count.load(Ordering::Relaxed), 1, "the others take its answer");
        login.doubt();
        let all = futures_util::future::join_all((0..50).map(|_| login.ensure())).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(token(&login).as_deref(), Some("t2"));
    }

    #[tokio::test]
    async fn a_token_is_used_until_it_ends_where_no_other_is_to_be_had() {
        let (server, count, serving) = counting(Duration::ZERO, 18_000).await;
        let login = login(server);
        login.ensure().await.unwrap();
        serving.abort();
        let _ = serving.await;
        let at = |due: bool, ends: bool| {
            let of = |is_over| if is_over { Instant::now() } else { Instant::now() + ATTEMPT };
            let mut token = login.token();
            let token = token.as_mut().unwrap();
            (token.due, token.ends) = (of(due), of(ends));
        };
        at(true, false);
        assert!(matches!(login.refresh().await, Err(Failure::Broken(_))), "it is asked for");
        login.ensure().await.expect("half of its time is over, and no more");
        login.doubt();
        login.ensure().await.expect("what was refused may be refused for something else");
        assert_eq!(token(&login).as_deref(), Some("t1"));
        at(true, true);
        assert!(matches!(login.ensure().await, Err(Failure::Broken(_))));
        assert_eq!(token(&login), None, "it says nothing any more");
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    /// A server that answers once, and what it was asked.
    async fn answering(status: StatusCode, answer: &str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut part) = (String::new(), [0; 4096]);
            while !asked.contains("password=") {
                let length = stream.read(&mut part).await.unwrap();
                asked.push_str(std::str::from_utf8(&part[..length]).unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked
        });
        (address, asked)
    }

    fn login(server: String) -> Arc<Login> {
        Arc::new(Login::new(server, Some(("me".to_owned(), "s3cret&=".to_owned()))))
    }

    /// Gives it a token that is good and doubted.
    fn doubt(login: &Login) {
        let (text, ends) = ("t0".to_owned(), Instant::now() + Duration::from_secs(3600));
        *login.token() = Some(Token { text, due: ends, ends, is_doubted: true });
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_token_does_not_wait_for_a_server_that_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = login(listener.local_addr().unwrap().to_string());
        doubt(&login);
        let start = Instant::now();
        login.ensure().await.expect("it may be good");
        assert_eq!(start.elapsed().as_millis(), REPLACING.as_millis());
        assert_eq!(token(&login).as_deref(), Some("t0"));
    }

    #[tokio::test]
    async fn a_token_that_comes_late_is_taken() {
        let (server, count, _) = counting(2 * REPLACING, 18_000).await;
        let login = login(server);
        doubt(&login);
        login.ensure().await.unwrap();
        // Whoever asks holds this.
        drop(login.asking.lock().await);
        assert_eq!(token(&login).as_deref(), Some("t1"));
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_good_token_is_given_up_only_where_its_user_is_denied() {
        for (status, kept) in [
            (StatusCode::NOT_FOUND, Some("t0")),
            (StatusCode::TOO_MANY_REQUESTS, Some("t0")),
            (StatusCode::BAD_GATEWAY, Some("t0")),
            (StatusCode::UNAUTHORIZED, None),
            (StatusCode::FORBIDDEN, None),
        ] {
            let (server, _asked) = answering(status, "no").await;
            let login = login(server);
            doubt(&login);
            let answer = login.replace("t0").await;
            assert_eq!(answer.is_ok(), kept.is_some(), "{status}: {answer:?}");
            assert_eq!(token(&login).as_deref(), kept, "{status}");
        }
        let (server, _asked) = answering(StatusCode::FORBIDDEN, "no").await;
        let login = login(server);
        doubt(&login);
        login.replace("an earlier one").await.unwrap_err();
        assert_eq!(token(&login).as_deref(), Some("t0"), "another has come meanwhile");
    }

    #[tokio::test]
    async fn the_password_is_in_the_body_and_the_token_in_the_requests() {
        let (server, asked) = answering(
            StatusCode::OK,
            r#"{"accessToken":"t0ken","tokenTtl":18000,"globalAdmin":true}"#,
        )
        .await;
        let login = login(server);
        login.ensure().await.unwrap();
        let asked = asked.await.unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /nacos/v1/auth/login HTTP/1.1"), "{head}");
        assert!(!head.contains("s3cret"), "{head}");
        assert_eq!(body, "username=me&password=s3cret%26%3D");
        assert_eq!(login.token().as_ref().unwrap().text, "t0ken");
        login.ensure().await.expect("it is good for hours");
        assert!(!format!("{login:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_nacos_words() {
        let (server, _asked) = answering(StatusCode::FORBIDDEN, "unknown user!").await;
        let failure = login(server).ensure().await.unwrap_err();
        assert_eq!(failure.to_string(), "cannot sign in: 403 Forbidden: unknown user!");
        assert!(matches!(failure, Failure::Denied(_)), "another server would say so, too");
        let (server, _asked) = answering(StatusCode::OK, "{}").await;
        let failure = login(server).ensure().await.unwrap_err();
        assert_eq!(failure.to_string(), "cannot sign in: the answer is not Nacos's");
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let failure = login(gone.to_string()).ensure().await.unwrap_err();
        assert!(matches!(failure, Failure::Broken(_)), "another server may be there: {failure}");
        Arc::new(Login::new("nowhere".to_owned(), None))
            .ensure()
            .await
            .expect("nobody is to sign in");
    }
}
