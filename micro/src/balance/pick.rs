//! A node picked for one call, and what the call's end tells of it.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use super::{
    EndpointId, Explanation, Outcome,
    lines::{Lines, Sought},
    policy::Counted,
    room::Place,
    snapshot::Endpoint,
    tally::{Tally, TooMuch},
};
use crate::{registry::Node, transport};

/// What comes of calls that the driver has to act on.
#[derive(Debug)]
pub(super) enum News<C> {
    /// A node's calls have failed too often in a row.
    Failing(Arc<Tally>, TooMuch),
    /// A probe that began then went well or not.
    Probed(Arc<Tally>, Instant, bool),
    /// Someone wants to know how it stands.
    Asked(oneshot::Sender<Explanation>),
    /// A call may go to these nodes alone, and none of them is among those that are picked.
    Sought(Sought<String>, oneshot::Sender<Option<Arc<Endpoint<C>>>>),
}

/// A node picked for one call, which counts as in flight there until this is dropped. Dropped
/// without a [report](Self::report), the call was cancelled and says nothing of the node.
#[derive(Debug)]
pub(crate) struct Pick<C = transport::Connection> {
    endpoint: Arc<Endpoint<C>>,
    started: Instant,
    is_sampled: bool,
    /// Whether what comes of it decides on an ejected node. One that says nothing decides nothing, and the
    /// next calls are spared it: else one after the other would go to a node that hangs, each to be
    /// overtaken or given up. Another is made after a while, as if none had come.
    pub(super) is_probe: bool,
    _counted: Option<Counted>,
    place: Place,
    /// Where nodes have limits.
    lines: Option<Arc<Lines>>,
}

impl<C> Pick<C> {
    /// A call that has begun at an endpoint.
    pub(super) fn begun(
        endpoint: Arc<Endpoint<C>>,
        started: Instant,
        counted: Option<Counted>,
        place: Place,
        lines: Option<&Arc<Lines>>,
    ) -> Self {
        let (is_sampled, is_probe) = (false, false);
        Self {
            endpoint,
            started,
            is_sampled,
            is_probe,
            _counted: counted,
            place,
            lines: lines.cloned(),
        }
    }

    /// Its place among all calls, which it is without from then on.
    pub(crate) fn take_place(&mut self) -> Place {
        self.place.take()
    }

    /// Gives it one.
    pub(crate) fn give_place(&mut self, place: Place) {
        self.place = place;
    }

    /// The connection to send the call on.
    pub(crate) fn connection(&self) -> &C {
        &self.endpoint.connection
    }

    /// The node it leads to.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.endpoint.node
    }

    /// What to avoid in further attempts of the same call.
    pub(crate) fn endpoint(&self) -> EndpointId {
        self.endpoint.id
    }

    /// Reports how the call goes, while it stays in flight: of a stream, that it has
    /// [begun](Outcome::Begun) and how it ends.
    pub(crate) fn report(&mut self, outcome: Outcome) {
        let (load, now) = (&self.endpoint.load, Instant::now());
        let tally = &self.endpoint.tally;
        let too_much = match outcome {
            Outcome::Cancelled => return,
            Outcome::Overtaken => return load.lasted(now - self.started, now),
            Outcome::TurnedAway => return load.failed(now),
            Outcome::Success | Outcome::Begun => {
                if !std::mem::replace(&mut self.is_sampled, true) {
                    load.succeeded(now - self.started, now);
                }
                if outcome == Outcome::Success {
                    tally.answered();
                }
                None
            }
            Outcome::Unimplemented(method) => {
                load.lacks(method, now);
                tally.answered();
                None
            }
            Outcome::Failure => tally.failed(),
            Outcome::TransportFailure => tally.broke(),
            Outcome::ConnectionLost if load.lose() => tally.lost(load.has_answered()),
            Outcome::ConnectionLost => {
                tally.failed_with_others();
                None
            }
        };
        let is_well =
            matches!(outcome, Outcome::Success | Outcome::Begun | Outcome::Unimplemented(_));
        if !is_well {
            load.failed(now);
        }
        if let Some(too_much) = too_much {
            self.tell(News::Failing(tally.clone(), too_much));
        }
        if std::mem::take(&mut self.is_probe) {
            self.tell(News::Probed(tally.clone(), self.started, is_well));
        }
    }

    fn tell(&self, news: News<C>) {
        // The driver ends with its runtime, and nobody then picks.
        let _ = self.endpoint.news.send(news);
    }

    /// Reports how the call went, and ends it.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }
}

impl<C> Drop for Pick<C> {
    fn drop(&mut self) {
        self.endpoint.load.end();
        if let Some(lines) = &self.lines {
            lines.freed();
        }
    }
}
