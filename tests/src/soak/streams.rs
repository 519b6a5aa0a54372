//! What became of the streams beside the calls, and whether it might have.

use std::{collections::HashMap, fmt};

use crate::fault::{Audit, Call, Fault, Method, Visit};

/// The first of their ids, apart from those of the calls.
pub const FIRST_STREAM: u64 = 1 << 32;

/// A stream as its reader saw it. Before its first message it is as a read, which is made again where it
/// fails, and so fails never; then as a write, which goes down with its node.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The node that its messages came from, once one had come.
    pub node: Option<String>,
    /// Whether it lasted until its reader had enough, or what broke it off.
    pub call: Call,
}

impl Stream {
    /// A stream as the other process writes it in a line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (node, call) = line.strip_prefix("~ ")?.split_once(' ')?;
        Some(Self { node: (node != "-").then(|| node.to_owned()), call: Call::parse(call)? })
    }
}

/// `~ NODE CALL`, and `-` where no message came.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~ {} {}", self.node.as_deref().unwrap_or("-"), self.call)
    }
}

/// What should not have become of streams under these faults.
pub(super) fn wrong(streams: Vec<Stream>, mut visits: Vec<Visit>, faults: &[Fault]) -> Vec<String> {
    let nodes: HashMap<_, _> =
        streams.iter().filter_map(|it| Some((it.call.id, it.node.clone()?))).collect();
    // Where else it was before its first message does not matter.
    visits.retain(|visit| nodes.get(&visit.call).is_none_or(|node| *node == visit.node));
    let calls = streams.into_iter().map(|Stream { node, call }| {
        let method = if node.is_some() { Method::Write } else { Method::Read };
        Call { method, ..call }
    });
    let audit = Audit::new(calls.collect(), visits);
    let mut wrong: Vec<_> =
        audit.broken_rules().into_iter().map(|broken| format!("of a stream: {broken}")).collect();
    let unexcused = audit.unexcused(faults);
    wrong.extend(unexcused.iter().map(|call| format!("a stream broke without excuse: {call:?}")));
    wrong
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use micro::Code;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// From its node, if it got so far, until it was left or broken off, which is told as an error does.
    fn stream(node: Option<&str>, began: f64, ended: f64, broken_by: Option<&str>) -> Stream {
        let outcome = match broken_by {
            None => Ok(node.expect("it was left amid its messages").to_owned()),
            Some(by) => Err((Code::Unavailable, format!("service 'a', node {by}: gone"))),
        };
        let (began, ended) = (seconds(began), seconds(ended));
        let call = Call { id: FIRST_STREAM, method: Method::Read, began, ended, outcome };
        Stream { node: node.map(str::to_owned), call }
    }

    fn visits(nodes: &[&str]) -> Vec<Visit> {
        let visit = |node: &&str| Visit {
            node: (*node).to_owned(),
            call: FIRST_STREAM,
            began: seconds(9.0),
            ended: None,
        };
        nodes.iter().map(visit).collect()
    }

    #[test]
    fn a_stream_may_break_with_its_node_alone_and_only_once_it_has_begun() {
        let fault = Fault {
            victim: "a-1".to_owned(),
            at: seconds(10.0),
            detected_within: seconds(1.0),
            at_most: usize::MAX,
        };
        for (case, stream, nodes, is_wrong) in [
            ("left", stream(Some("b-1"), 9.0, 10.5, None), &["b-1"][..], false),
            ("with its node", stream(Some("a-1"), 9.0, 10.5, Some("a-1")), &["a-1"], false),
            (
                "made again, then with its node",
                stream(Some("a-1"), 9.0, 10.5, Some("a-1")),
                &["b-1", "a-1"],
                false,
            ),
            ("its node was well", stream(Some("b-1"), 9.0, 10.5, Some("b-1")), &["b-1"], true),
            ("before the fault", stream(Some("a-1"), 9.0, 9.9, Some("a-1")), &["a-1"], true),
            ("long after it", stream(Some("a-1"), 11.5, 12.0, Some("a-1")), &["a-1"], true),
            ("no message came", stream(None, 9.9, 10.5, Some("a-1")), &["a-1"], true),
            ("nor anywhere", stream(None, 9.9, 10.5, Some("a-1")), &[], true),
            ("from nobody", stream(Some("b-1"), 9.0, 9.5, None), &["a-1"], true),
            ("past its deadline", stream(Some("b-1"), 9.0, 13.0, None), &["b-1"], true),
        ] {
            let wrong = wrong(vec![stream], visits(nodes), std::slice::from_ref(&fault));
            assert_eq!(!wrong.is_empty(), is_wrong, "{case}: {wrong:?}");
        }
    }

    #[test]
    fn a_stream_written_in_a_line_is_read_back() {
        for stream in [
            stream(Some("b-1"), 9.0, 10.5, None),
            stream(Some("b-1"), 9.0, 10.5, Some("b-1")),
            stream(None, 9.0, 10.5, Some("b-1")),
        ] {
            let read = Stream::parse(&stream.to_string());
            assert_eq!(format!("{read:?}"), format!("{:?}", Some(stream)));
        }
        let call = stream(None, 9.0, 10.5, Some("b-1")).call;
        assert!(Stream::parse(&call.to_string()).is_none());
    }
}
