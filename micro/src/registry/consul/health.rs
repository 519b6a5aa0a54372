//! What the catalog knows of a service.

use std::time::Duration;

use tokio::{task::spawn_blocking, time::Instant};

use super::{
    super::Listing,
    agent::{Agent, Answer, EXCHANGE, Request, part},
    connections::Lane,
    known::Known,
    registration::nameable,
    service::Healthy,
};
use crate::Error;

/// An answer longer than this, in bytes, is read beside the runtime's calls, on a thread of its own.
const LONG: usize = 64 * 1024;

/// A query that waits for a change from that index on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocking {
    pub(super) index: u64,
    pub(super) wait: Duration,
    pub(super) lane: Lane,
}

/// The nodes of a service, at once or as soon as they change, or the wait is over. The answer begins by then.
///
/// What is known from the last answer is not decoded again, and what this one says is known then.
///
/// Always asked of the leader: an answer that is a step behind would deny what was written just
/// now, and one from another server could be from before what was seen. A cluster without a leader
/// gives an error, and whoever has nodes keeps them.
pub(super) async fn read(
    agent: &Agent,
    what: &str,
    service: &str,
    blocking: Option<Blocking>,
    begins: Instant,
    known: &mut Known,
) -> Result<Listing, Error> {
    nameable("service name", service)
        .map_err(|why| Error::config(format!("{}: cannot {what}: {why}", agent.name())))?;
    let options = &agent.options;
    let kind = if options.is_connect { "connect" } else { "service" };
    let mut request = Request::get(format!("/v1/health/{kind}/{}", part(service)));
    if let Some(Blocking { index, wait, .. }) = blocking {
        request = request.with("index", index.to_string());
        request = request.with("wait", format!("{}ms", wait.as_millis()));
    }
    for (key, value) in [("dc", &options.dc), ("near", &options.near)] {
        if let Some(value) = value {
            request = request.with(key, value);
        }
    }
    let turn = match blocking {
        None => Some(agent.turn(what, begins).await?),
        Some(_) => None,
    };
    let lane = blocking.map(|blocking| blocking.lane);
    let answer = agent.read(what, request, lane, begins).await?.success(agent, what)?;
    drop(turn);
    let Some(index) = answer.index else {
        return Err(agent.not_consuls(what, "it has no X-Consul-Index"));
    };
    let is_filtered = answer.is_filtered;
    let (name, formats) = (service.to_owned(), options.formats.clone());
    let mut before = std::mem::take(known);
    let decode = move |answer: Answer| {
        before.take(&answer.body, &name, &formats)?;
        // Consul waits at an index from 1 on.
        let listing = before.listing(index.max(1));
        Ok((before, listing))
    };
    let decoded: Result<_, String> = if answer.body.len() > LONG {
        let decoded = spawn_blocking(move || decode(answer)).await;
        decoded.map_err(|error| agent.failed(what, error))?
    } else {
        decode(answer)
    };
    let (now, listing) = decoded.map_err(|why| agent.not_consuls(what, why))?;
    *known = now;
    if known.is_empty() {
        may_read(agent, what, service, is_filtered).await?;
    }
    Ok(listing)
}

/// Our own entries in the catalog of the agent's datacenter, whatever their state.
pub(super) async fn own(
    agent: &Agent,
    what: &str,
    service: &str,
    id: &str,
    deadline: Instant,
) -> Result<Vec<Healthy>, Error> {
    let request = Request::get(format!("/v1/health/service/{}", part(service)));
    let request = request.with("filter", format!("Service.ID == {}", quoted(id)));
    let answer = agent.call(what, request, deadline).await?;
    let is_filtered = answer.is_filtered;
    let found: Vec<Healthy> = answer.json(agent, what)?;
    if found.is_empty() && is_filtered {
        return Err(agent.failed(what, no_right(service)));
    }
    Ok(found)
}

/// A string in a filter, where Go's rules hold.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str(r"\x22"),
            '\\' => quoted.push_str(r"\\"),
            c if c.is_control() => quoted.push_str(&format!(r"\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Refuses an empty list that is one only for want of rights. Consul says of a token that it left
/// something out; those without one, and where there is nothing yet, are asked what they may do.
async fn may_read(
    agent: &Agent,
    what: &str,
    service: &str,
    is_filtered: bool,
) -> Result<(), Error> {
    if is_filtered {
        return Err(agent.failed(what, no_right(service)));
    }
    let mut asked = vec![serde_json::json!({
        "Resource": "service", "Access": "read", "Segment": service
    })];
    if !agent.options.has_token() {
        asked.push(serde_json::json!({ "Resource": "node", "Access": "read", "Segment": "" }));
    }
    let body = serde_json::Value::from(asked).to_string();
    let request = Request::post("/v1/internal/acl/authorize").with_body(body);
    let answer = agent.call(what, request, Instant::now() + EXCHANGE).await?;
    // Without ACLs (401), and where there is no such question (404), nobody is refused. Any other
    // refusal leaves open whether there is nobody.
    if matches!(answer.status.as_u16(), 401 | 404) {
        return Ok(());
    }
    let allowed: Vec<serde_json::Value> = answer.json(agent, what)?;
    match allowed.iter().all(|one| one["Allow"] != serde_json::Value::Bool(false)) {
        true => Ok(()),
        false => Err(agent.failed(what, no_right(service))),
    }
}

fn no_right(service: &str) -> String {
    format!(
        "Consul shows nothing to this token, or to one who has none; its policy must have \
         service {service:?} {{ policy = \"read\" }} and node_prefix \"\" {{ policy = \"read\" }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_in_a_filter_is_quoted_as_go_has_it() {
        assert_eq!(quoted("a-1"), r#""a-1""#);
        assert_eq!(quoted("a\"\\\n\u{e9}"), "\"a\\x22\\\\\\u000a\u{e9}\"");
    }
}
