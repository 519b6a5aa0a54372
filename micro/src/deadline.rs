//! The deadline of the call under way, as a task-local: the server sets it around a handler, and a
//! call that the handler makes inherits it. It does not cross `tokio::spawn`.

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// Runs `future` with `deadline` as the [current](current) one. `None` hides an outer deadline.
#[cfg(test)]
pub(crate) fn scope<F: std::future::Future>(
    deadline: Option<Instant>,
    future: F,
) -> impl Future<Output = F::Output> {
    DEADLINE.scope(deadline, future)
}

/// Runs `work`, one poll of a handler's future or stream, with `deadline` as the [current](current)
/// one. `None` hides an outer deadline.
pub(crate) fn sync_scope<T>(deadline: Option<Instant>, work: impl FnOnce() -> T) -> T {
    DEADLINE.sync_scope(deadline, work)
}

/// The deadline of the call whose handler runs in this task; `None` outside of one, or when its
/// caller set none.
pub(crate) fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn holds_inside_its_scope_only() {
        let outer = Instant::now() + Duration::from_secs(1);
        assert_eq!(current(), None);
        scope(Some(outer), async {
            assert_eq!(current(), Some(outer));
            scope(None, async { assert_eq!(current(), None, "an inner scope hides the outer") })
                .await;
            assert_eq!(sync_scope(None, current), None);
            assert_eq!(current(), Some(outer));
        })
        .await;
        assert_eq!(current(), None);
    }

    #[tokio::test]
    async fn does_not_cross_a_spawn() {
        let inner = scope(Some(Instant::now()), async { tokio::spawn(async { current() }).await });
        assert_eq!(inner.await.expect("the task ends"), None);
    }
}
