//! Since when calls go to each node, which is what its slow start is measured from.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::EndpointId;

/// Who is away for no longer is no newcomer: a connection that a GOAWAY ended for its age is made anew at
/// once, to a process that has been there all the time.
const BRIEFLY: Duration = Duration::from_secs(1);

/// The nodes that calls go to, and those that they went to a moment ago.
#[derive(Debug, Default)]
pub(super) struct Came {
    since: HashMap<EndpointId, Since>,
    /// Who has left, in that order.
    left: VecDeque<(Instant, EndpointId)>,
}

#[derive(Debug)]
struct Since {
    at: Instant,
    left: Option<Instant>,
}

impl Came {
    /// Calls go to a node, and have since when.
    pub(super) fn comes(&mut self, id: EndpointId, now: Instant) -> Instant {
        let since = self.since.entry(id).or_insert(Since { at: now, left: None });
        if since.left.take().is_some_and(|left| left + BRIEFLY < now) {
            since.at = now;
        }
        since.at
    }

    /// Calls go there no more.
    pub(super) fn leaves(&mut self, id: EndpointId, now: Instant) {
        while let Some((left, id)) = self.left.pop_front_if(|(left, _)| *left + BRIEFLY < now) {
            if self.since.get(&id).is_some_and(|it| it.left == Some(left)) {
                self.since.remove(&id);
            }
        }
        if let Some(since) = self.since.get_mut(&id) {
            since.left = Some(now);
            self.left.push_back((now, id));
        }
    }

    /// Nor are they to go there as before.
    pub(super) fn is_ejected(&mut self, id: EndpointId) {
        self.since.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_for_a_moment_has_been_there_all_the_time() {
        let (mut came, id, start) = (Came::default(), EndpointId(1), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(came.comes(id, at(0)), at(0));
        assert_eq!(came.comes(id, at(20_000)), at(0), "another record, or connection");
        came.leaves(id, at(30_000));
        assert_eq!(came.comes(id, at(30_900)), at(0));
        came.leaves(id, at(40_000));
        assert_eq!(came.comes(id, at(41_001)), at(41_001));
        came.is_ejected(id);
        assert_eq!(came.comes(id, at(80_000)), at(80_000));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let (mut came, start) = (Came::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for id in 0..100 {
            came.comes(EndpointId(id), at(id));
            came.leaves(EndpointId(id), at(id));
        }
        assert!(came.since.len() <= 2 && came.left.len() <= 2, "{came:?}");
    }
}
