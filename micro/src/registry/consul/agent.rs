//! Exchanges with the agent, over HTTP.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use form_urlencoded::Serializer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    super::causes::with_causes,
    connections::{Connections, EXCHANGES, Lane},
    files::Files,
    options::Options,
};
use crate::Error;

/// How long an exchange may take, all its requests together.
pub(super) const EXCHANGE: Duration = Duration::from_secs(1);

/// How long the rest of a long answer may take: what has begun to come is no silent agent.
const BODY: Duration = Duration::from_secs(20);

/// The longest answer taken, in bytes: ten thousand nodes with go-micro's usual tags are some
/// 30 MB.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// The longest part of an answer quoted in an error, in characters.
const MAX_QUOTED: usize = 300;

/// Exchanges under way at once, watches apart: an agent takes 200 connections from one address.
const AT_ONCE: usize = 16;

/// Reads of all nodes, or services, under way at once. Each may take as long as its answer is long, so
/// they have turns of their own: a renewal waits for no read.
const READS_AT_ONCE: usize = 8;

/// How often an agent whose watches are silent is asked whether it is still there.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// What may stand in a part of a path as it is. Not `.`: of a part that is nothing else a URL makes
/// another path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');

/// A part of a path.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The agent, and the connections to it.
pub(super) struct Agent {
    pub(super) options: Options,
    connections: Connections,
    tokens: Files<Option<HeaderValue>>,
    turns: Semaphore,
    reads: Semaphore,
    alive: tokio::sync::Mutex<Option<Alive>>,
}

/// Whether it said that it is there and has a leader, or why not, and when that was.
struct Alive {
    at: Instant,
    outcome: Result<(), String>,
}

/// A watch's place on a connection.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) agent: Arc<Agent>,
    pub(super) lane: Lane,
}

impl Place {
    pub(super) fn of(agent: Arc<Agent>) -> Self {
        let lane = agent.connections.enter();
        Self { agent, lane }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.agent.connections.leave(self.lane);
    }
}

/// A request: to be sent twice without harm.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
}

/// What the agent said, whatever it was.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-Consul-Index`
    pub(super) index: Option<u64>,
    /// Something was left out for want of rights. Never told to those without a token.
    pub(super) is_filtered: bool,
    pub(super) body: Bytes,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Request {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), query: Vec::new(), body: None }
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }

    pub(super) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(super) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }
}

impl Agent {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            connections: Connections::default(),
            tokens: Files::default(),
            turns: Semaphore::new(AT_ONCE),
            reads: Semaphore::new(READS_AT_ONCE),
            alive: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.name
    }

    /// What went wrong at what.
    pub(super) fn failed(&self, what: &str, why: impl fmt::Display) -> Error {
        Error::registry(format!("{}: cannot {what}: {why}", self.name()))
    }

    /// What was answered is nothing that Consul answers.
    pub(super) fn not_consuls(&self, what: &str, why: impl fmt::Display) -> Error {
        // It may quote a text of any length.
        let why: String = why.to_string().chars().take(MAX_QUOTED).collect();
        self.failed(what, format_args!("the answer is not Consul's: {why}"))
    }

    /// One exchange, over by the deadline.
    pub(super) async fn call(
        &self,
        what: &str,
        request: Request,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let _turn = self.one_of(&self.turns, AT_ONCE, what, deadline).await?;
        self.send(what, request, EXCHANGES, deadline, deadline).await
    }

    /// Waits for one of few reads at once to be over.
    pub(super) async fn turn(
        &self,
        what: &str,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, Error> {
        self.one_of(&self.reads, READS_AT_ONCE, what, deadline).await
    }

    async fn one_of<'a>(
        &self,
        turns: &'a Semaphore,
        at_once: usize,
        what: &str,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'a>, Error> {
        // Nobody ever closes it.
        let turn = timeout_at(deadline, turns.acquire()).await.ok().and_then(Result::ok);
        turn.ok_or_else(|| {
            self.failed(what, format_args!("{at_once} other exchanges took too long"))
        })
    }

    /// One whose answer begins by then, and may be long; or one of a watch, that waits to begin.
    pub(super) async fn read(
        &self,
        what: &str,
        request: Request,
        of: Option<Lane>,
        begins: Instant,
    ) -> Result<Answer, Error> {
        self.send(what, request, of.unwrap_or(EXCHANGES), begins, begins + BODY).await
    }

    async fn send(
        &self,
        what: &str,
        request: Request,
        lane: Lane,
        begins: Instant,
        ends: Instant,
    ) -> Result<Answer, Error> {
        let mut is_second = false;
        let why = loop {
            let ((client, generation), token) = timeout_at(begins, self.ready(lane))
                .await
                .unwrap_or_else(|_| {
                    Err("its certificates, or its token, are not read in time".into())
                })
                .map_err(|why| self.failed(what, why))?;
            // Given up by its caller shortly before its end, it was silent for too long.
            let silent_from = Some(begins - EXCHANGE / 2);
            let mut pending = Pending { agent: self, generation, silent_from };
            let asked = timeout_at(begins, self.ask(&client, token, &request)).await;
            let why = match asked {
                Ok(Ok(response)) => match timeout_at(ends, answer(response)).await {
                    Ok(Ok(answer)) => {
                        pending.silent_from = None;
                        return Ok(answer);
                    }
                    Ok(Err(why)) => why,
                    Err(_) => "the answer took too long".to_owned(),
                },
                Ok(Err(why)) => why,
                Err(_) => "no answer in time".to_owned(),
            };
            self.connections.discard(generation);
            // A connection that was idle may have been broken for as long.
            if is_second || Instant::now() >= begins {
                break why;
            }
            is_second = true;
        };
        Err(self.failed(what, why))
    }

    /// Finds out whether the agent answers and its cluster has a leader, unless that was found
    /// lately: without one, nothing that it tells is news. Those who ask while somebody finds out
    /// share what he finds, also if that is a failure.
    pub(super) async fn is_alive(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let mut alive = self.alive.lock().await;
        let holds = |alive: &&Alive| match alive.outcome {
            Ok(()) => alive.at.elapsed() < ALIVE_EVERY / 2,
            Err(_) => alive.at >= asked,
        };
        let outcome = match alive.as_ref().filter(holds) {
            Some(alive) => alive.outcome.clone(),
            None => {
                let outcome = self.leader().await.map_err(|error| error.to_string());
                *alive = Some(Alive { at: Instant::now(), outcome: outcome.clone() });
                outcome
            }
        };
        outcome.map_err(Error::registry)
    }

    async fn leader(&self) -> Result<(), Error> {
        let what = "keep watching";
        let request = Request::get("/v1/status/leader");
        let answer = self.call(what, request, Instant::now() + EXCHANGE).await?;
        let leader: String = answer.json(self, what)?;
        if leader.is_empty() {
            return Err(self.failed(what, "Consul has no leader"));
        }
        Ok(())
    }

    /// What the files are needed for: the client of these connections, and the token.
    async fn ready(&self, lane: Lane) -> Result<((Client, u64), Option<HeaderValue>), String> {
        Ok((self.connections.client(&self.options, lane).await?, self.token().await?))
    }

    async fn ask(
        &self,
        client: &Client,
        token: Option<HeaderValue>,
        request: &Request,
    ) -> Result<Response, String> {
        let mut builder = client.request(request.method.clone(), self.url(request));
        if let Some(token) = token {
            builder = builder.header("x-consul-token", token);
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        builder.send().await.map_err(|error| with_causes(&error.without_url()))
    }

    async fn token(&self) -> Result<Option<HeaderValue>, String> {
        if !self.options.has_token_file() {
            return self.options.token();
        }
        let options = self.options.clone();
        self.tokens.read(|| None, move || options.token()).await
    }

    fn url(&self, request: &Request) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(&self.options.tenancy);
        query.extend_pairs(&request.query);
        let (base, path, query) = (self.options.base(), &request.path, query.finish());
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}{path}{mark}{query}")
    }
}

/// An exchange under way. Dropped when it has been silent for too long, it gives up the
/// connections of its time: the idle ones may be as broken as the one it is on.
struct Pending<'a> {
    agent: &'a Agent,
    generation: u64,
    silent_from: Option<Instant>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.silent_from.is_some_and(|from| Instant::now() >= from) {
            self.agent.connections.discard(self.generation);
        }
    }
}

async fn answer(mut response: Response) -> Result<Answer, String> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let index = header("x-consul-index").and_then(|index| index.parse().ok());
    let is_filtered = header("x-consul-results-filtered-by-acls") == Some("true");
    let status = response.status();
    let mut body = BytesMut::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| with_causes(&error.without_url()))?
    {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, index, is_filtered, body: body.freeze() })
}

impl Answer {
    /// The answer if it is one of success.
    pub(super) fn success(self, agent: &Agent, what: &str) -> Result<Self, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(agent.failed(what, self.refusal(agent)))
    }

    /// The answer's JSON.
    pub(super) fn json<T: DeserializeOwned>(self, agent: &Agent, what: &str) -> Result<T, Error> {
        let answer = self.success(agent, what)?;
        serde_json::from_slice(&answer.body).map_err(|error| agent.not_consuls(what, error))
    }

    /// Why it is none, in Consul's words, and what may help.
    fn refusal(&self, agent: &Agent) -> String {
        let said = String::from_utf8_lossy(&self.body);
        let said: String = said.trim().escape_debug().take(MAX_QUOTED).collect();
        let remedy = match self.status {
            StatusCode::FORBIDDEN if said.contains("ACL not found") => {
                "; Consul knows no such token: it was deleted or has expired"
            }
            StatusCode::FORBIDDEN if !agent.options.has_token() => {
                "; give a token with the option `token` or `token_file`"
            }
            StatusCode::FORBIDDEN => {
                "; the token's policy must have service \"NAME\" { policy = \"write\" } to register, \
                 service_prefix \"\" { policy = \"read\" } to call others, and node_prefix \"\" { \
                 policy = \"read\" } for both"
            }
            _ => "",
        };
        let separator = if said.is_empty() { "" } else { ": " };
        format!("Consul answered {}{separator}{said}{remedy}", self.status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::url::Url, *};

    #[test]
    fn every_request_names_its_namespace_and_partition() {
        let url = Url::parse("consul://h:1?ns=team%20a&partition=b&token=hunter2").unwrap();
        let agent = Agent::new(Options::of(&url).unwrap());
        let request = Request::get(format!("/v1/health/service/{}", part("a/b c%.\u{e9}")));
        assert_eq!(
            agent.url(&request.with("index", "7")),
            "http://h:1/v1/health/service/a%2Fb%20c%25.%C3%A9?ns=team+a&partition=b&index=7"
        );
        assert_eq!(
            agent.url(&Request::put("/v1/agent/service/register")),
            "http://h:1/v1/agent/service/register?ns=team+a&partition=b"
        );
        assert!(!format!("{agent:?}").contains("hunter2"));
    }
}
