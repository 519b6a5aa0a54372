//! One registry for all of a runtime that open the same.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::runtime;

use super::Registry;

type Opened = HashMap<(String, Option<runtime::Id>), Weak<dyn Registry>>;

/// The registry of this identity, scheme included: the one that the runtime has open already, or
/// else a new one. A registry's connections live in the runtime that made them.
pub(super) fn share<R: Registry>(identity: String, make: impl FnOnce() -> R) -> Arc<dyn Registry> {
    let made: Result<_, Infallible> = try_share(identity, || Ok(Arc::new(make()) as _));
    match made {
        Ok(registry) => registry,
        Err(never) => match never {},
    }
}

/// The same where making one may fail, and may open others on its way.
pub(super) fn try_share<E>(
    identity: String,
    make: impl FnOnce() -> Result<Arc<dyn Registry>, E>,
) -> Result<Arc<dyn Registry>, E> {
    let runtime = runtime::Handle::try_current().ok().map(|runtime| runtime.id());
    let key = (identity, runtime);
    let find = |opened: &Opened| opened.get(&key).and_then(Weak::upgrade);
    if let Some(registry) = find(&opened()) {
        return Ok(registry);
    }
    let made = make()?;
    let mut opened = opened();
    // Another thread may have been quicker.
    if let Some(registry) = find(&opened) {
        return Ok(registry);
    }
    opened.insert(key, Arc::downgrade(&made));
    Ok(made)
}

fn opened() -> MutexGuard<'static, Opened> {
    static OPENED: LazyLock<Mutex<Opened>> = LazyLock::new(Mutex::default);
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    opened.retain(|_, registry| registry.strong_count() > 0);
    opened
}
