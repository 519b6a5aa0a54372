//! What may happen to a node, and what it may cost: each fault is done to anybody's client alike.

use std::{path::Path, time::Duration};

use h2::Reason;
use micro::{Client, balance::NodeState, registry::Node};
use tokio::time::{Instant, sleep};

use super::{
    CALLERS, Fleet, Rogue, Rule, Silent, Trial, Unaccepting, Verdict, Who, now,
    refusing::Refusing,
    stand_in::{Peer, StandIn},
    told,
};
use crate::raw::{InFile, Raw};

/// One fault. Three nodes are called by 16 callers for a second before it, and while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFault {
    /// One is killed with SIGKILL, and started again 2 s later.
    Killed,
    /// Two are killed at once, and started again 2 s later.
    TwoKilled,
    /// All are killed, and started again at once.
    AllKilled,
    /// One is stopped with SIGSTOP for 5 s.
    Stopped,
    /// Each in turn leaves on SIGTERM and is started again.
    RollingRestart,
    /// A file lists two nodes; the address of one is changed in it to the third's, and who was there
    /// leaves on SIGTERM.
    AddressChanged,
    /// In place of one there is a port that refuses connections.
    Refuses,
    /// .. that accepts them and says nothing.
    Silent,
    /// .. that accepts them and closes them.
    Closes,
    /// .. that accepts them, is ready, and closes them at once.
    ClosesWhenReady,
    /// .. where the SYN is dropped.
    SynDropped,
    /// .. that sends SETTINGS and nothing more.
    SilentAfterSettings,
    /// .. that is ready, and silent then.
    SilentWhenReady,
    /// .. that answers each call with GOAWAY and has processed none.
    RefusesByGoAway,
    /// .. that answers each call with GOAWAY for an error, and has processed none.
    ThrowsOut,
    /// .. a node that sends GOAWAY at each tenth call.
    GoesAway,
    /// .. a node that resets each second call with `REFUSED_STREAM`.
    ResetsRefused,
    /// .. a node that resets each second call with `INTERNAL_ERROR`.
    ResetsForError,
    /// .. a node that resets each second call after its answer's headers.
    ResetsAmidAnswer,
    /// .. a node that ends each second call without a status.
    EndsWithoutStatus,
    /// .. a node that answers all calls with `ResourceExhausted`.
    Exhausted,
    /// .. a node that answers all calls with `Unavailable`.
    Unavailable,
    /// .. a node that takes 200 ms for each call, the others 2 ms.
    Slow,
}

/// What a fault lasts that does not end by itself.
pub(super) const LASTS: Duration = Duration::from_secs(8);

/// Long enough that several faults can be tried at once, short enough that there are calls in flight
/// on each node.
pub const PAUSE: Duration = Duration::from_millis(20);

impl NodeFault {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Killed,
        Self::TwoKilled,
        Self::AllKilled,
        Self::Stopped,
        Self::RollingRestart,
        Self::AddressChanged,
        Self::Refuses,
        Self::Silent,
        Self::Closes,
        Self::ClosesWhenReady,
        Self::SynDropped,
        Self::SilentAfterSettings,
        Self::SilentWhenReady,
        Self::RefusesByGoAway,
        Self::ThrowsOut,
        Self::GoesAway,
        Self::ResetsRefused,
        Self::ResetsForError,
        Self::ResetsAmidAnswer,
        Self::EndsWithoutStatus,
        Self::Exhausted,
        Self::Unavailable,
        Self::Slow,
    ];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "one of three killed",
            Self::TwoKilled => "two of three killed at once",
            Self::AllKilled => "all killed, and started again at once",
            Self::Stopped => "one of three stopped for 5 s",
            Self::RollingRestart => "rolling restart",
            Self::AddressChanged => "a file's node gets another address",
            Self::Refuses => "one of three refuses connections",
            Self::Silent => "one of three accepts and says nothing",
            Self::Closes => "one of three accepts and closes",
            Self::ClosesWhenReady => "one of three sends SETTINGS and closes",
            Self::SynDropped => "SYN to one of three dropped",
            Self::SilentAfterSettings => "one of three sends SETTINGS and nothing more",
            Self::SilentWhenReady => "one of three acknowledges SETTINGS and says nothing more",
            Self::RefusesByGoAway => "one of three answers each call with GOAWAY",
            Self::ThrowsOut => "one of three answers each call with GOAWAY, ENHANCE_YOUR_CALM",
            Self::GoesAway => "one of three sends GOAWAY at each tenth call",
            Self::ResetsRefused => "one of three resets each second call, REFUSED_STREAM",
            Self::ResetsForError => "one of three resets each second call, INTERNAL_ERROR",
            Self::ResetsAmidAnswer => "one of three resets each second call amid its answer",
            Self::EndsWithoutStatus => "one of three ends each second call without a status",
            Self::Exhausted => "one of three always ResourceExhausted",
            Self::Unavailable => "one of three fails fast, Unavailable",
            Self::Slow => "one of three 100 times slower",
        }
    }

    /// Whether the fleet has a bad node for as long as it lasts, which is not one that stands in for one.
    pub(crate) fn leaves_a_bad_one(self) -> bool {
        matches!(self, Self::Exhausted | Self::Unavailable | Self::Slow)
    }

    /// How many calls that are not idempotent it may cost at most; none that is, and none where no
    /// handler can have seen the call.
    fn at_most(self) -> usize {
        match self {
            // Each caller has no more than one call there until the client could know.
            Self::Killed | Self::Stopped => CALLERS,
            Self::TwoKilled => 2 * CALLERS,
            Self::AllKilled => 3 * CALLERS,
            // Two connections lost that never answered a call eject it, and each caller has no more than
            // one call on each.
            Self::SilentWhenReady | Self::ClosesWhenReady => 2 * CALLERS,
            // Five bad statuses in a row eject it, or five calls broken of which every second one is
            // answered; and each caller may have one there by then. It is away for 30 s, and the call
            // that tries it again is one that may be made elsewhere.
            Self::ResetsForError
            | Self::ResetsAmidAnswer
            | Self::EndsWithoutStatus
            | Self::Exhausted
            | Self::Unavailable => 5 + CALLERS,
            _ => 0,
        }
    }

    /// Whether it ejects a node that stays connected.
    fn is_ejected(self) -> bool {
        matches!(
            self,
            Self::ResetsForError
                | Self::ResetsAmidAnswer
                | Self::EndsWithoutStatus
                | Self::Exhausted
                | Self::Unavailable
        )
    }

    /// Does it to three nodes that register in this registry, under the calls of this client, until
    /// there were so many calls.
    ///
    /// # Panics
    /// When a node does not start.
    pub async fn done(self, registry: &str, who: Who, at_least: u64) -> Verdict {
        let fleet = Fleet::beside_others(registry).await;
        let file = InFile::serving().await;
        let name = who.line(self.name());
        let url = match self {
            Self::AddressChanged => {
                file.put_all(&fleet.records().await[..2]).await;
                file.url_at("")
            }
            _ => fleet.url.clone(),
        };
        let at_most = self.at_most();
        if who == Who::Micro {
            println!("{name}: it may cost no call that is idempotent, and {at_most} others");
        }
        let mut trial = Trial::over(fleet, &url, &name, who, PAUSE).await;
        let stand_in = match self {
            Self::AddressChanged => {
                change_address(&mut trial, &file).await;
                sleep(LASTS).await;
                None
            }
            _ => self.act(&mut trial, 1, LASTS).await,
        };
        let bad: Vec<_> = trial.faults().into_iter().map(|fault| fault.victim).collect();
        let out = match who {
            Who::Micro if self.is_ejected() => Some(out_since(&trial.client, &bad[0]).await),
            _ => None,
        };
        trial.until_made(at_least).await;
        // What holds under a fault that nobody met would hold without it.
        if let Some(stand_in) = &stand_in {
            stand_in.met(who, &trial.client).await;
        }
        let verdict = trial.end().await;
        let allowed = verdict.line().allowed;
        assert!(allowed <= at_most, "{name}: {allowed} excused, of {at_most} that were to be");
        if let Some(out) = out {
            // Those under way when it was ejected arrive within a second, and the next 30 s after it.
            let (from, to) = (out + Duration::from_secs(1), out + Duration::from_secs(30));
            let visits = verdict.visits_between(&bad[0], from, to);
            assert_eq!(visits, 0, "{name}: it was called {visits} times when it was ejected");
        }
        if stand_in.is_none() {
            let is_called =
                |id: &String| verdict.visits_between(id, Duration::ZERO, Duration::MAX) > 0;
            assert!(bad.iter().all(is_called), "{name}: no call reached one of {bad:?}");
        }
        // tonic calls also who was never ready.
        if let Some(calls) = stand_in.and_then(|it| it.unanswered())
            && who == Who::Micro
        {
            let was_ready =
                matches!(self, Self::SilentWhenReady | Self::RefusesByGoAway | Self::ThrowsOut);
            assert_eq!(calls > 0, was_ready, "{name}: {calls} calls were sent to it");
        }
        verdict
    }

    /// Does it to the node `victim`, for so long where it does not end by itself.
    ///
    /// # Panics
    /// When a node does not start, and where it takes a file.
    pub(crate) async fn act(
        self,
        trial: &mut Trial,
        victim: usize,
        lasts: Duration,
    ) -> Option<StandIn> {
        match self {
            Self::Killed => self.kill(trial, &[victim]).await,
            Self::TwoKilled => self.kill(trial, &[victim, (victim + 1) % 3]).await,
            Self::AllKilled => {
                let from = Instant::now();
                trial.kill_all(&[0, 1, 2]).await;
                trial.restart_all(&[0, 1, 2]).await;
                // Within a second, unless the machine is busy.
                trial.dark_for(from.elapsed().as_secs() as usize + 1);
            }
            Self::Stopped => {
                trial.pause(victim);
                sleep(Duration::from_secs(5)).await;
                trial.resume(victim);
            }
            Self::RollingRestart => {
                for node in 0..3 {
                    trial.fleet.terminate(node).await;
                    trial.restart(node).await;
                }
            }
            Self::Exhausted => {
                self.worsen(trial, victim, &["--answers", "resource-exhausted"]).await;
                sleep(lasts).await;
            }
            Self::Unavailable => {
                self.worsen(trial, victim, &["--answers", "unavailable"]).await;
                sleep(lasts).await;
            }
            Self::Slow => {
                self.worsen(trial, victim, &["--takes", "200"]).await;
                sleep(lasts).await;
            }
            _ => {
                let rogue = self.put_rogue(trial, victim).await;
                if self == Self::SilentWhenReady {
                    // Until it is found out the first time, just under 2 s after the first call, all
                    // callers may come to wait there: on a busy machine the others' calls take long
                    // enough for that. Then they count as fast beside it.
                    trial.dark_for(1);
                }
                sleep(lasts).await;
                return Some(rogue);
            }
        }
        None
    }

    async fn kill(self, trial: &mut Trial, victims: &[usize]) {
        trial.kill_all(victims).await;
        sleep(Duration::from_secs(2)).await;
        trial.restart_all(victims).await;
    }

    /// A node of ours that is a bad one.
    async fn worsen(self, trial: &mut Trial, node: usize, flags: &[&str]) {
        trial.fleet.terminate(node).await;
        // It is called before it is known here to be registered.
        let from = now();
        trial.fleet.replace_by(node, flags).await;
        let victim = trial.fleet.id(node).to_owned();
        trial.is_bad(&victim, from, self.at_most());
    }

    /// Something else that listens, or not.
    async fn put_rogue(self, trial: &mut Trial, node: usize) -> StandIn {
        trial.fleet.terminate(node).await;
        let peer = self.rogue(trial.fleet.journals()).await;
        trial.is_bad(Rogue::ID, now(), self.at_most());
        StandIn::list(peer, &trial.fleet).await
    }

    async fn rogue(self, journals: &Path) -> Peer {
        let rule = match self {
            Self::Refuses => return Peer::Refusing(Refusing::start()),
            Self::SynDropped => return Peer::Unaccepting(Unaccepting::start()),
            Self::Silent => return Peer::Silent(Silent::start().await),
            Self::Closes => return Peer::Silent(Silent::closing().await),
            Self::ClosesWhenReady => return Peer::Silent(Silent::closing_when_ready().await),
            Self::SilentAfterSettings => return Peer::Silent(Silent::after_settings().await),
            Self::SilentWhenReady => return Peer::Silent(Silent::when_ready().await),
            Self::RefusesByGoAway => return Peer::Silent(Silent::going_away().await),
            Self::ThrowsOut => return Peer::Silent(Silent::throwing_out().await),
            Self::GoesAway => Rule::GoesAway,
            Self::ResetsRefused => Rule::Resets(Reason::REFUSED_STREAM),
            Self::ResetsForError => Rule::Resets(Reason::INTERNAL_ERROR),
            Self::ResetsAmidAnswer => Rule::ResetsAmidAnswer,
            Self::EndsWithoutStatus => Rule::EndsWithoutStatus,
            _ => unreachable!("{self:?} is done to a node of the fleet"),
        };
        Peer::Rogue(Rogue::start(rule, journals).await)
    }
}

/// Waits until the client has ejected this node; since when.
async fn out_since(client: &Client, node: &str) -> Duration {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let told = told(client, node).await.expect("it is listed");
        if let NodeState::Ejected { .. } = told.state {
            return now() - told.since;
        }
        assert!(Instant::now() < limit, "20 s later it is not ejected: {told}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The file lists the first two of three nodes: the third's address takes the second's place.
async fn change_address(trial: &mut Trial, file: &InFile) {
    // The third is not in the file until it stands in for the second.
    let [_, second, third] = &trial.fleet.records().await[..] else { unreachable!() };
    file.put(&Node { address: third.address.clone(), ..second.clone() }).await;
    trial.expect(2);
    trial.fleet.terminate(1).await;
}
