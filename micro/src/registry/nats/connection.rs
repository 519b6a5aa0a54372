//! One connection to one server.

use std::{fmt::Write, time::Duration};

use async_nats::{Client, Event, Message, PublishErrorKind, ServerAddr, Subscriber};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{
    super::causes::with_causes,
    message::{ASKED, Outgoing, TOLD},
    options::Options,
};

const CLOSED: &str = "the connection was closed";

/// A connection, with all that is to be heard on it subscribed to.
pub(super) struct Connection {
    pub(super) publisher: Publisher,
    pub(super) subscriptions: Subscriptions,
}

/// Publishes on a connection.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    client: Client,
    /// The subject on which we hear answers.
    inbox: String,
    condition: watch::Receiver<Condition>,
}

pub(super) struct Subscriptions {
    told: Subscriber,
    asked: Subscriber,
    answers: Subscriber,
    condition: watch::Receiver<Condition>,
}

/// How a connection fares.
#[derive(Debug, Clone, Default)]
struct Condition {
    /// Why it is not to be relied on any more.
    lost: Option<String>,
    /// The server's last complaint.
    complaint: Option<String>,
}

/// What is heard on a connection.
pub(super) enum Heard {
    Told(Message),
    Asked(Message),
    Answered(Message),
    /// Nothing more, and why.
    Lost(String),
}

impl Connection {
    /// # Errors
    /// Why there is none.
    pub(super) async fn to(server: &str, options: &Options) -> Result<Self, String> {
        let address: ServerAddr = server.parse().map_err(|error| format!("{error}"))?;
        let (fares, condition) = watch::channel(Condition::default());
        let options = options.client()?.event_callback(move |event| {
            fares.send_modify(|condition| condition.take(event));
            std::future::ready(())
        });
        let client = options.connect(address).await.map_err(|error| with_causes(&error))?;
        if !client.server_info().headers {
            return Err("the server carries no headers: NATS 2.2 or newer is needed".to_owned());
        }
        let subscribe = async |subject: String| {
            client.subscribe(subject).await.map_err(|error| with_causes(&error))
        };
        let inbox = client.new_inbox();
        let subscriptions = Subscriptions {
            told: subscribe(TOLD.to_owned()).await?,
            asked: subscribe(ASKED.to_owned()).await?,
            answers: subscribe(inbox.clone()).await?,
            condition: condition.clone(),
        };
        Ok(Self { publisher: Publisher { client, inbox, condition }, subscriptions })
    }
}

impl Publisher {
    /// Hands the message to the connection.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) async fn publish(&self, outgoing: Outgoing) -> Result<(), String> {
        let Outgoing { subject, payload, headers, is_question, .. } = outgoing;
        let length = payload.len();
        let published = if is_question {
            let inbox = self.inbox.clone();
            self.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await
        } else {
            self.client.publish_with_headers(subject, headers, payload).await
        };
        published.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                let limit = self.client.max_payload();
                format!(
                    "the record takes {length} bytes, and a message of this server {limit} at most, \
                     headers included: give the node less metadata, or raise the server's max_payload"
                )
            }
            _ => with_causes(&error),
        })
    }

    /// The words for a connection on which nothing comes back within this time.
    pub(super) fn silence(&self, within: Duration) -> String {
        let mut why = format!("no answer within {within:?}");
        if let Some(complaint) = &self.condition.borrow().complaint {
            let _ = write!(why, "; the server said: {complaint}");
        }
        why
    }
}

impl Condition {
    fn take(&mut self, event: Event) {
        match event {
            Event::Disconnected => self.lost = Some("the connection broke".to_owned()),
            Event::Closed => self.lost = Some(CLOSED.to_owned()),
            // Some of what was said is lost.
            Event::SlowConsumer(_) => {
                self.lost = Some("more was said at once than could be taken in".to_owned());
            }
            Event::ServerError(error) => self.complain(error.to_string()),
            _ => {}
        }
    }

    fn complain(&mut self, complaint: String) {
        // The connection stays, and is deaf on that subject for good.
        if complaint.to_lowercase().contains("permissions violation for subscription") {
            self.lost.get_or_insert_with(|| format!("the server said: {complaint}"));
        }
        self.complaint = Some(complaint);
    }
}

impl Subscriptions {
    /// What is heard next.
    pub(super) async fn next(&mut self) -> Heard {
        let Self { told, asked, answers, condition } = self;
        let lost = async {
            match condition.wait_for(|condition| condition.lost.is_some()).await {
                Ok(condition) => condition.lost.clone().unwrap_or_default(),
                Err(_) => CLOSED.to_owned(),
            }
        };
        // What happened to the connection first; then answers: a node that answered and left after
        // that has left.
        let (heard, message): (fn(Message) -> Heard, _) = tokio::select! {
            biased;
            why = lost => return Heard::Lost(why),
            message = answers.next() => (Heard::Answered, message),
            message = told.next() => (Heard::Told, message),
            message = asked.next() => (Heard::Asked, message),
        };
        message.map_or_else(|| Heard::Lost(CLOSED.to_owned()), heard)
    }
}
