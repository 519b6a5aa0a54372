//! The callers' log joined with the nodes' journals, and the promises checked on it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{Call, DEADLINE, Method, Visit, Who};

/// A fault that was done to a node.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The id of the node.
    pub victim: String,
    /// When.
    pub at: Duration,
    /// How long the client may take to find out.
    pub detected_within: Duration,
    /// How many calls it may cost at most, of those that were there in that time.
    pub at_most: usize,
}

/// All calls and all that handlers saw of them.
#[derive(Debug)]
pub struct Audit {
    calls: Vec<Call>,
    visits: Vec<Visit>,
    by_call: HashMap<u64, Vec<usize>>,
    /// Whether an error says which node the call was sent to.
    names_nodes: bool,
}

impl Audit {
    /// Joins the two logs, of calls by our client.
    pub fn new(calls: Vec<Call>, visits: Vec<Visit>) -> Self {
        Self::of(Who::Micro, calls, visits)
    }

    /// Joins the two logs, of calls by anybody's client.
    pub fn of(who: Who, calls: Vec<Call>, visits: Vec<Visit>) -> Self {
        let mut by_call: HashMap<_, Vec<_>> = HashMap::new();
        for (index, visit) in visits.iter().enumerate() {
            by_call.entry(visit.call).or_default().push(index);
        }
        Self { calls, visits, by_call, names_nodes: who == Who::Micro }
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// How long calls were made.
    pub fn lasted(&self) -> Duration {
        let first = self.calls.iter().map(|call| call.began).min();
        let last = self.calls.iter().map(|call| call.ended).max();
        last.unwrap_or_default().saturating_sub(first.unwrap_or_default())
    }

    /// The calls that ended with an error.
    pub fn failed(&self) -> Vec<&Call> {
        self.calls.iter().filter(|call| call.outcome.is_err()).collect()
    }

    /// The failures that no fault excuses. An idempotent call's failure never is excused; another's
    /// is if the call may have been in flight on the victim before the client could know.
    pub fn unexcused<'a>(&'a self, faults: &[Fault]) -> Vec<&'a Call> {
        let mut failed = self.failed();
        failed.retain(|call| !faults.iter().any(|fault| self.may_be_on_victim(call, fault)));
        failed
    }

    /// The most failures that the faults excuse: every call that may have been in flight on a
    /// victim, from the fault until the client could know, and of those no more than it may cost.
    pub fn allowed(&self, faults: &[Fault]) -> usize {
        let mut left: Vec<_> = faults.iter().map(|fault| fault.at_most).collect();
        let excused = |call: &&Call| {
            let excuse = faults
                .iter()
                .zip(&mut left)
                .find(|(fault, left)| **left > 0 && self.may_be_on_victim(call, fault));
            excuse.map(|(_, left)| *left -= 1).is_some()
        };
        self.calls.iter().filter(excused).count()
    }

    fn may_be_on_victim(&self, call: &Call, fault: &Fault) -> bool {
        let overlaps = call.began <= fault.at + fault.detected_within && call.ended >= fault.at;
        // A call that no journal has may have been in the victim's socket, and then says so: its
        // error names the node that it was sent to.
        let elsewhere = self.visits_of(call.id).any(|visit| visit.node != fault.victim);
        let named = match &call.outcome {
            Ok(_) => true,
            Err((_, text)) => !self.names_nodes || text.contains(&format!("node {}", fault.victim)),
        };
        call.method == Method::Write && overlaps && !elsewhere && named
    }

    /// How many calls handlers were given and have not ended.
    pub fn open(&self) -> usize {
        self.visits.iter().filter(|visit| visit.ended.is_none()).count()
    }

    /// How many calls a handler of the victim had begun and not finished at the time.
    pub fn in_flight(&self, node: &str, at: Duration) -> usize {
        let in_flight = |visit: &&Visit| {
            visit.node == node && visit.began <= at && visit.ended.is_none_or(|ended| ended > at)
        };
        self.visits.iter().filter(in_flight).count()
    }

    /// How many calls the handlers of a node were given in a span of time.
    pub fn visits_between(&self, node: Option<&str>, from: Duration, to: Duration) -> usize {
        let counted = |visit: &&Visit| {
            (from..to).contains(&visit.began) && node.is_none_or(|node| visit.node == node)
        };
        self.visits.iter().filter(counted).count()
    }

    /// When the first call that began after `from` and was answered by `node` had its answer.
    pub fn first_answer(&self, node: &str, from: Duration) -> Option<Duration> {
        let answered = |call: &&Call| {
            call.began >= from && call.outcome.as_ref().is_ok_and(|answering| answering == node)
        };
        self.calls.iter().filter(answered).map(|call| call.ended).min()
    }

    /// How long after `from` the calls were as before a fault, of those that began before `until`: none
    /// failed or took over 100 ms for the next 3 s.
    pub fn recovery(&self, from: Duration, until: Duration) -> Duration {
        const SLOW: Duration = Duration::from_millis(100);
        const CALM: Duration = Duration::from_secs(3);
        let is_bad = |call: &&Call| {
            let is_between = call.ended > from && call.began < until;
            is_between && (call.outcome.is_err() || call.took() > SLOW)
        };
        let mut bad: Vec<_> = self.calls.iter().filter(is_bad).collect();
        bad.sort_unstable_by_key(|call| call.began);
        let mut calm = from;
        for call in bad {
            if call.began >= calm + CALM {
                break;
            }
            calm = calm.max(call.ended);
        }
        calm - from
    }

    /// The same from the first call on, where the fault was there before.
    pub fn recovery_from_the_start(&self) -> Duration {
        let first = self.calls.iter().map(|call| call.began).min();
        self.recovery(first.unwrap_or_default(), Duration::MAX)
    }

    /// The time within which 99 of 100 calls were answered.
    pub fn p99(&self) -> Duration {
        let mut times: Vec<_> = self.calls.iter().map(Call::took).collect();
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// The seconds, counted from the first call's begin, within which no call was answered, of those
    /// that were over before the last call ended.
    pub fn seconds_without_an_answer(&self) -> Vec<u64> {
        let begin = self.calls.iter().map(|call| call.began).min().unwrap_or_default();
        let second = |at: Duration| at.saturating_sub(begin).as_secs();
        let end = self.calls.iter().map(|call| second(call.ended)).max().unwrap_or_default();
        let answered = self.calls.iter().filter(|call| call.outcome.is_ok());
        let answered: HashSet<_> = answered.map(|call| second(call.ended)).collect();
        (0..end).filter(|second| !answered.contains(second)).collect()
    }

    /// What breaks the rules that hold under every fault: no id of a non-idempotent method with two
    /// handlers, no answer without a handler that gave it, no call past its deadline.
    pub fn broken_rules(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for call in &self.calls {
            let id = call.id;
            let nodes: Vec<_> = self.visits_of(id).map(|visit| visit.node.as_str()).collect();
            if call.method == Method::Write && nodes.len() > 1 {
                broken.push(format!("write {id} reached {} handlers: {nodes:?}", nodes.len()));
            }
            if let Ok(node) = &call.outcome
                && !nodes.contains(&node.as_str())
            {
                broken.push(format!("call {id}: answered by {node}, whose handlers never saw it"));
            }
            // What one busy machine may add to a timer.
            if call.took() > DEADLINE + Duration::from_millis(500) {
                broken.push(format!("call {id} took {:?}, past its deadline", call.took()));
            }
        }
        broken
    }

    fn visits_of(&self, call: u64) -> impl Iterator<Item = &Visit> {
        self.by_call.get(&call).into_iter().flatten().map(|&index| &self.visits[index])
    }
}

#[cfg(test)]
mod tests {
    use micro::Code;

    use super::*;

    const FAULT_AT: Duration = Duration::from_secs(10);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn fault() -> Fault {
        Fault {
            victim: "a-1".to_owned(),
            at: FAULT_AT,
            detected_within: seconds(1.0),
            at_most: usize::MAX,
        }
    }

    fn call(id: u64, method: Method, began: f64, ended: f64, node: Option<&str>) -> Call {
        let outcome = node
            .map(str::to_owned)
            .ok_or((Code::Unavailable, "service 'a', node a-1: gone".to_owned()));
        Call { id, method, began: seconds(began), ended: seconds(ended), outcome }
    }

    fn visit(call: u64, node: &str, began: f64, ended: Option<f64>) -> Visit {
        Visit { node: node.to_owned(), call, began: seconds(began), ended: ended.map(seconds) }
    }

    #[test]
    fn a_write_in_flight_on_the_victim_may_fail() {
        let calls = vec![call(1, Method::Write, 9.9, 10.1, None)];
        let audit = Audit::new(calls, vec![visit(1, "a-1", 9.95, None)]);
        assert_eq!(audit.unexcused(&[fault()]).len(), 0);
        assert_eq!(audit.allowed(&[fault()]), 1);
        assert_eq!(audit.in_flight("a-1", FAULT_AT), 1);
    }

    #[test]
    fn a_read_may_not_fail_even_there() {
        let calls = vec![call(1, Method::Read, 9.9, 10.1, None)];
        let audit = Audit::new(calls, vec![visit(1, "a-1", 9.95, None)]);
        assert_eq!(audit.unexcused(&[fault()]).len(), 1);
    }

    #[test]
    fn a_write_may_not_fail_on_another_node_or_after_the_detection() {
        let calls = vec![
            call(1, Method::Write, 9.9, 10.1, None),
            call(2, Method::Write, 11.5, 11.6, None),
            call(3, Method::Write, 9.0, 9.9, None),
        ];
        let audit = Audit::new(calls, vec![visit(1, "b-1", 9.95, Some(9.96))]);
        assert_eq!(audit.unexcused(&[fault()]).len(), 3);
    }

    #[test]
    fn a_fault_excuses_no_more_calls_than_it_may_cost() {
        let write = |id| call(id, Method::Write, 9.9, 10.1, None);
        let audit = Audit::new((1..=5).map(write).collect(), Vec::new());
        assert_eq!(audit.allowed(&[fault()]), 5);
        assert_eq!(audit.allowed(&[Fault { at_most: 3, ..fault() }]), 3);
        assert_eq!(audit.allowed(&[Fault { at_most: 3, ..fault() }, fault()]), 5);
    }

    #[test]
    fn calls_are_as_before_once_none_fails_or_is_slow_for_3_s() {
        let calls = vec![
            call(1, Method::Read, 9.0, 9.3, None),
            call(2, Method::Read, 9.9, 10.5, Some("a-1")),
            call(3, Method::Read, 11.0, 11.05, Some("a-1")),
            call(4, Method::Write, 12.0, 12.0, None),
            call(5, Method::Read, 15.5, 16.0, Some("a-1")),
        ];
        let audit = Audit::new(calls, Vec::new());
        assert_eq!(audit.recovery(FAULT_AT, Duration::MAX), seconds(2.0));
        assert_eq!(audit.recovery(FAULT_AT, seconds(11.5)), seconds(0.5));
        assert_eq!(audit.recovery(seconds(12.75), Duration::MAX), seconds(3.25));
        assert_eq!(audit.recovery(seconds(16.0), Duration::MAX), seconds(0.0));
        assert_eq!(audit.recovery_from_the_start(), seconds(3.0));
        assert_eq!(audit.lasted(), seconds(7.0));
        assert_eq!(Audit::new(Vec::new(), Vec::new()).recovery_from_the_start(), seconds(0.0));
    }

    #[test]
    fn a_second_without_an_answer_is_found() {
        let calls = vec![
            call(1, Method::Read, 10.0, 10.1, Some("a-1")),
            call(2, Method::Read, 10.2, 11.3, None),
            call(3, Method::Read, 11.9, 12.0, Some("a-1")),
            call(4, Method::Read, 12.1, 15.2, Some("a-1")),
            call(5, Method::Read, 13.0, 13.5, Some("a-1")),
        ];
        assert_eq!(Audit::new(calls, Vec::new()).seconds_without_an_answer(), [1, 4]);
        assert_eq!(Audit::new(Vec::new(), Vec::new()).seconds_without_an_answer(), [0; 0]);
    }

    #[test]
    fn a_write_with_two_handlers_an_unseen_answer_and_a_late_one_break_the_rules() {
        let calls = vec![
            call(1, Method::Write, 1.0, 1.1, Some("a-1")),
            call(2, Method::Read, 1.0, 1.1, Some("a-1")),
            call(3, Method::Read, 1.0, 9.0, None),
            call(4, Method::Read, 1.0, 1.1, Some("b-1")),
        ];
        let visits = vec![
            visit(1, "a-1", 1.0, Some(1.1)),
            visit(1, "b-1", 1.0, Some(1.1)),
            visit(4, "a-1", 1.0, None),
            visit(4, "b-1", 1.0, Some(1.1)),
        ];
        assert_eq!(Audit::new(calls, visits).broken_rules().len(), 3);
    }
}
