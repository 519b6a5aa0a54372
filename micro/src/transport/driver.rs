//! The task behind a connection: it moves `h2` along, keeps time, and says how it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    Config,
    connection::Shared,
    disconnect::Disconnect,
    gather::Gather,
    keepalive::{Keepalive, Step},
    tap::{GoAway, Tap},
};

/// A future that ends when the connection does; to be spawned once it [is
/// ready](Self::poll_ready).
pub(super) struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: h2::client::Connection<Gather<Tap<IO>>, Bytes>,
    shared: Arc<Shared>,
    pings: PingPong,
    /// Whether `h2` has a PING out; it takes no second.
    is_pinging: bool,
    keepalive: Keepalive,
    timer: Pin<Box<Sleep>>,
    is_timed: bool,
    had_calls: bool,
    knows_limit: bool,
    is_acknowledged: bool,
    /// Whether the task's waker, which stays the same, is where a closing handle finds it.
    is_awaiting_close: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(
        mut connection: h2::client::Connection<Gather<Tap<IO>>, Bytes>,
        shared: Arc<Shared>,
        config: &Config,
    ) -> Self {
        let now = Instant::now();
        let pings = connection.ping_pong().expect("asked for once");
        Self {
            connection,
            pings,
            is_pinging: false,
            keepalive: Keepalive::new(config.ping_after, config.ping_timeout, now),
            timer: Box::pin(tokio::time::sleep_until(now)),
            is_timed: false,
            had_calls: false,
            knows_limit: false,
            is_acknowledged: false,
            is_awaiting_close: false,
            shared,
        }
    }

    /// Ready when the peer's SETTINGS are here and it has acknowledged ours, with the reason if the
    /// connection ended instead.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Arc<str>>> {
        let end = self.poll_end(cx).map(|(_, why)| why);
        if self.knows_limit && self.is_acknowledged {
            return Poll::Ready(Ok(()));
        }
        end.map(Err)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<(Disconnect, Arc<str>)> {
        let result = Pin::new(&mut self.connection).poll(cx);
        let seen = self.shared.activity.take();
        if seen.settings() {
            self.knows_limit = true;
            self.shared.slots.set_limit(self.connection.max_concurrent_send_streams());
        }
        self.is_acknowledged |= seen.acknowledged();
        if seen.go_away()
            && let Some(go_away) = self.shared.activity.go_away()
        {
            self.leave(go_away);
        }
        if let Poll::Ready(result) = result {
            return Poll::Ready(self.why_ended(result));
        }
        let has_calls = self.shared.slots.taken() > 0;
        if self.shared.slots.is_closed() && !has_calls {
            return Poll::Ready(self.why_ended(Ok(())));
        }
        self.poll_keepalive(cx, seen.bytes(), seen.progress(), has_calls)
    }

    /// Costs a look at the clock when bytes came, and the timer a few operations a second.
    fn poll_keepalive(
        &mut self,
        cx: &mut Context<'_>,
        has_bytes: bool,
        has_progress: bool,
        has_calls: bool,
    ) -> Poll<(Disconnect, Arc<str>)> {
        if has_bytes {
            self.keepalive.received(Instant::now(), has_progress);
            if self.is_pinging && self.pings.poll_pong(cx).is_ready() {
                self.is_pinging = false;
            }
        }
        // It was polled when it was set, so that it wakes this task.
        let is_due = self.is_timed && self.timer.is_elapsed();
        let newest = self.shared.activity.last_stream_sent();
        // While the timer runs it will do, unless it was set slow.
        let has_news = if self.is_timed {
            self.keepalive.is_hastened(newest)
        } else {
            has_bytes || has_calls != self.had_calls
        };
        if !is_due && !has_news {
            return Poll::Pending;
        }
        self.had_calls = has_calls;
        self.is_timed = false;
        loop {
            let now = Instant::now();
            match self.keepalive.next(now, has_calls, newest) {
                Step::Rest => return Poll::Pending,
                Step::Wait(until) => {
                    self.timer.as_mut().reset(until);
                    self.is_timed = true;
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                // The one before may be out still, if other bytes answered for it.
                Step::Ping => {
                    self.is_pinging |= self.pings.send_ping(Ping::opaque()).is_ok();
                }
                Step::Dead => {
                    let silence = self.keepalive.silence(now);
                    let why = format!("the peer has been silent for {silence:.1?}, PINGs included");
                    return Poll::Ready((Disconnect::TIMED_OUT, why.into()));
                }
            }
        }
    }

    fn leave(&self, go_away: &GoAway) {
        let reason = Reason::from(go_away.code);
        if reason == Reason::ENHANCE_YOUR_CALM && go_away.debug.contains("too_many_pings") {
            self.shared.double_ping_after();
        }
        self.shared.drain(Disconnect::of_go_away(go_away.code), self.tell(go_away));
    }

    fn tell(&self, GoAway { code, debug }: &GoAway) -> String {
        let reason = Reason::from(*code);
        let quote = if debug.is_empty() { String::new() } else { format!(" ({debug:?})") };
        format!("the peer sent GOAWAY {reason:?}{quote}")
    }

    fn why_ended(&self, result: Result<(), h2::Error>) -> (Disconnect, Arc<str>) {
        // Of a connection that was closing already, what closed it has been said first.
        let disconnect = result.as_ref().err().map_or(Disconnect::UNKNOWN, Disconnect::of_error);
        let why = match result {
            Ok(()) if self.shared.slots.is_closed() => "closed".into(),
            Ok(()) => "the peer closed the connection".into(),
            Err(error) => format!("the connection broke: {error}"),
        };
        let why = match self.shared.activity.go_away() {
            Some(go_away) => format!("{}: {why}", self.tell(go_away)).into(),
            None => why.into(),
        };
        (disconnect, why)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Before anything is looked at: who closes after this look wakes us for another.
        if !this.is_awaiting_close || this.shared.slots.is_closed() {
            this.shared.closing.register(cx.waker());
            this.is_awaiting_close = true;
        }
        this.poll_end(cx).map(|(disconnect, why)| this.shared.end(disconnect, why))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Drop for Driver<IO> {
    fn drop(&mut self) {
        // Only if the task was dropped midway.
        let why = "the runtime that drove the connection has shut down";
        self.shared.end(Disconnect::SHUTDOWN, why);
    }
}
