//! What the driver publishes, and how calls pick from it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Filter, News, Pick, Request,
    lines::{Lines, Sought},
    probes::Probes,
    room::{Place, Room},
    snapshot::{Endpoint, Snapshot},
};
use crate::discovery::{Doubts, Neighbours, Status};

/// How far the driver has come with what the registry lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has no list yet.
    Unread,
    /// Of some node it is not known yet whether it can be connected to; or, where none is listed,
    /// what the registry has instead.
    Trying,
    /// Each was tried once: what is not ready now, none knows when it will be.
    Tried,
}

/// What the driver publishes and the handles read.
pub(super) struct Shared<C> {
    pub(super) snapshot: ArcSwap<Snapshot<C>>,
    /// Ejected nodes for a call to try.
    pub(super) probes: Probes<C>,
    /// What calls have to tell the driver.
    pub(super) news: mpsc::UnboundedSender<News<C>>,
    /// What is left for calls, where that is limited.
    pub(super) room: Room,
    /// Calls that wait.
    pub(super) lines: Arc<Lines>,
    /// Tells the driver that one began to wait for a node.
    pub(super) wanted: Notify,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) listed: AtomicUsize,
    /// How many of those are connected and not well, or have not said so yet.
    pub(super) unwell: AtomicUsize,
    /// How many nodes the registry has that do not pass the filter.
    pub(super) left_out: AtomicUsize,
    pub(super) filter: Filter,
    pub(super) last_error: ArcSwapOption<String>,
    pub(super) neighbours: Neighbours,
    /// What those last said.
    pub(super) found: ArcSwapOption<String>,
    /// Whether a call has failed for want of a node since they were asked.
    pub(super) missed: AtomicBool,
    pub(super) registry: watch::Receiver<Status>,
    /// Where the driver says that a node is not to be reached.
    pub(super) doubts: Doubts,
}

impl<C> Shared<C> {
    /// The place is the call's once it has a node.
    pub(super) fn pick(&self, request: &Request<'_>, place: &mut Place) -> Option<Pick<C>> {
        let now = Instant::now();
        self.probe(request, true, place, now)
            .or_else(|| pick(&self.snapshot, self.limit(), place, request, now))
            .or_else(|| self.probe(request, false, place, now))
    }

    /// The call tries an ejected node, if there is one for it, with room: as the policy has it, or any.
    fn probe(
        &self,
        request: &Request<'_>,
        by_policy: bool,
        place: &mut Place,
        now: Instant,
    ) -> Option<Pick<C>> {
        let request = Request { limit: self.room.limits.per_node, ..*request };
        let policy = by_policy.then_some(&self.snapshot);
        let endpoint = self.probes.take(&request, self.filter.serving, policy, now)?;
        let mut pick = self.begin(endpoint, place)?;
        pick.is_probe = true;
        Some(pick)
    }

    /// The node that the call is pinned to, if that is ejected: it is well as far as it says itself, and
    /// who pins has decided. (For Envoy's override host and gRFC A55 the host is a preference, and they go
    /// elsewhere then; a pin goes nowhere else.) Or one that serves its method, if those that do are all
    /// ejected: the last of a set never is, and they are as good as one. The driver is asked, so that what
    /// is picked from need not have them.
    pub(super) async fn sought(&self, request: &Request<'_>) -> Option<Arc<Endpoint<C>>> {
        let sought = match self.lines.sought(request) {
            Sought::Any => return None,
            Sought::Serving(_) if !self.has_none(request) => return None,
            sought => sought.to_owned(),
        };
        let (asked, told) = oneshot::channel();
        self.news.send(News::Sought(sought, asked)).ok()?;
        told.await.ok().flatten()
    }

    /// A call begins at an endpoint, if there is room. It says nothing of whether that is let in again:
    /// a probe does.
    pub(super) fn begin(&self, endpoint: Arc<Endpoint<C>>, place: &mut Place) -> Option<Pick<C>> {
        match self.room.limits.per_node {
            Some(limit) if !endpoint.load.begin_within(limit) => return None,
            Some(_) => {}
            None => endpoint.load.begin(),
        }
        let counted = self.snapshot.load().count(&endpoint.load);
        let lines = self.limit().map(|(_, lines)| lines);
        Some(Pick::begun(endpoint, Instant::now(), counted, place.take(), lines))
    }

    /// How many calls a node may have, and who waits for that, where nodes are limited.
    fn limit(&self) -> Option<(u32, &Arc<Lines>)> {
        self.room.limits.per_node.map(|limit| (limit, &self.lines))
    }

    /// Whether there is a node for the call, but for the limits.
    pub(super) fn is_full(&self, request: &Request<'_>) -> bool {
        self.room.limits.per_node.is_some() && !self.has_none(request)
    }

    /// Whether there is room for the call, but not where the policy has it.
    pub(super) fn is_choosy(&self, request: &Request<'_>) -> bool {
        let request = Request { limit: self.room.limits.per_node, ..*request };
        self.snapshot.load().is_choosy(&request)
    }

    /// Whether there is no node for the call, whatever the limits.
    fn has_none(&self, request: &Request<'_>) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.pick(request, Instant::now(), &mut fastrand::Rng::new()).is_none()
    }

    /// Waits until there is no more to wait for than what was tried, and failed.
    pub(super) async fn tried(&self) {
        let (mut progress, mut registry) = (self.progress.subscribe(), self.registry.clone());
        // What is refused, or over, is for others to see.
        let failed = |status: &Status| status.error.is_some() && !status.synced && !status.refused;
        tokio::select! {
            biased;
            _ = progress.wait_for(|progress| *progress == Progress::Tried) => {}
            Ok(_) = registry.wait_for(failed) => {}
        }
    }
}

/// A call begins at what is picked.
pub(super) fn pick<C>(
    snapshot: &ArcSwap<Snapshot<C>>,
    limit: Option<(u32, &Arc<Lines>)>,
    place: &mut Place,
    request: &Request<'_>,
    now: Instant,
) -> Option<Pick<C>> {
    let (snapshot, mut rng) = (snapshot.load(), fastrand::Rng::new());
    let Some((limit, lines)) = limit else {
        let endpoint = snapshot.pick(request, now, &mut rng)?.clone();
        endpoint.load.begin();
        let counted = snapshot.count(&endpoint.load);
        return Some(Pick::begun(endpoint, now, counted, place.take(), None));
    };
    let request = Request { limit: Some(limit), ..*request };
    loop {
        let endpoint = snapshot.pick(&request, now, &mut rng)?;
        // Another call may have taken the last place there since.
        if endpoint.load.begin_within(limit) {
            let endpoint = endpoint.clone();
            let counted = snapshot.count(&endpoint.load);
            return Some(Pick::begun(endpoint, now, counted, place.take(), Some(lines)));
        }
    }
}
