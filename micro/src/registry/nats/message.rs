//! What goes over NATS: go-micro's subjects and bytes, and headers that go-micro passes over.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use super::{super::format::gomicro, bus::Say};

/// Where all are told who is there and who has left.
pub(super) const TOLD: &str = "micro.nats.watch";
/// Where all are asked.
pub(super) const ASKED: &str = "micro.nats.query";

/// Who has published a message, so that he knows his own when it comes back; and its number there.
const ORIGIN: &str = "Micro-Origin";
const NUMBER: &str = "Micro-Number";
/// The TTL of the node in a message, in milliseconds.
const TTL: &str = "Micro-Ttl-Ms";

/// A message to be published.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    pub(super) headers: HeaderMap,
    pub(super) is_question: bool,
    /// Whether we hear it, too.
    pub(super) comes_back: bool,
}

impl Outgoing {
    /// # Errors
    /// A record over 1 MiB, saying so.
    pub(super) fn of(say: &Say, origin: &str, number: u64) -> Result<Self, String> {
        let (subject, payload, ttl) = match say {
            Say::Create(node, ttl) => (TOLD, gomicro::encode_event("create", node)?, Some(*ttl)),
            Say::Delete(node) => (TOLD, gomicro::encode_event("delete", node)?, None),
            Say::Answer(to, node, ttl) => (to.as_str(), gomicro::encode(node)?, Some(*ttl)),
            Say::Get(service) => (ASKED, gomicro::encode_get(service), None),
            Say::List => (ASKED, gomicro::encode_list(), None),
        };
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin);
        headers.insert(NUMBER, number.to_string().as_str());
        if let Some(ttl) = ttl {
            headers.insert(TTL, ttl.as_millis().to_string().as_str());
        }
        Ok(Self {
            subject: subject.to_owned(),
            payload: payload.into(),
            headers,
            is_question: matches!(say, Say::Get(_) | Say::List),
            comes_back: !matches!(say, Say::Answer(..)),
        })
    }
}

/// The message's number, if this origin has published it.
pub(super) fn number_of_own(message: &Message, origin: &str) -> Option<u64> {
    let header = |name| message.headers.as_ref()?.get(name);
    if header(ORIGIN)?.as_str() != origin {
        return None;
    }
    header(NUMBER)?.as_str().parse().ok()
}

/// The TTL that the message says its node has.
pub(super) fn ttl(message: &Message) -> Option<Duration> {
    let ttl = message.headers.as_ref()?.get(TTL)?;
    ttl.as_str().parse().ok().map(Duration::from_millis)
}
