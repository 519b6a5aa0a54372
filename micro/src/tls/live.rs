//! A configuration that follows its files.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::pem::{Contents, Pems};

/// How often the files are looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How long a connection waits for the first look: of a file system that hangs, what was read before is
/// used.
const LOOK_TAKES: Duration = Duration::from_millis(200);

/// A configuration made of files. It is made anew when they change; what cannot be used is told once,
/// and the configuration stays.
pub(super) struct Live<T> {
    /// Whose it is, for the log.
    whose: &'static str,
    pems: Pems,
    make: Make<T>,
    current: ArcSwap<T>,
    looks: Mutex<Looks>,
    /// Whether the task that looks at the files, in the runtime of whoever needed it first, has done so;
    /// closed where there is no such task.
    looked: Mutex<watch::Receiver<bool>>,
}

/// Makes a configuration of what was read, or says in words why not.
type Make<T> = fn(&Contents) -> Result<T, String>;

impl<T: Send + Sync + 'static> Live<T> {
    /// Reads the files for the first time, and follows them if this is within a runtime. Blocks.
    ///
    /// # Errors
    /// In words: what cannot be used, and why.
    pub(super) fn open(
        whose: &'static str,
        pems: Pems,
        make: Make<T>,
    ) -> Result<Arc<Self>, String> {
        let contents = pems.read()?;
        let current = ArcSwap::from_pointee(make(&contents)?);
        let looks = Mutex::new(Looks { known: Ok(contents), next: None });
        let looked = Mutex::new(watch::channel(false).1);
        let live = Arc::new(Self { whose, pems, make, current, looks, looked });
        if live.pems.has_files() && Handle::try_current().is_ok() {
            live.looked(true);
        }
        Ok(live)
    }

    /// The configuration for a connection that begins now.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<T> {
        if self.pems.has_files() {
            let mut looked = self.looked(false);
            let _ = timeout(LOOK_TAKES, looked.wait_for(|has_looked| *has_looked)).await;
        }
        self.current.load_full()
    }

    /// Whether the files were looked at by a task that goes on to do so. It is started if there is none,
    /// and looks at once unless they have just been read.
    fn looked(self: &Arc<Self>, are_read: bool) -> watch::Receiver<bool> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        // Its runtime may be gone while others are not.
        if looked.has_changed().is_err() {
            let (has_looked, receiver) = watch::channel(are_read);
            tokio::spawn(watch(Arc::downgrade(self), has_looked));
            *looked = receiver;
        }
        looked.clone()
    }

    /// Looks at the files once. Blocks.
    pub(super) fn look(&self) {
        let found = self.pems.read();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changed) = looks.take(found) else { return };
        let whose = self.whose;
        match changed.as_ref().map_err(Clone::clone).and_then(self.make) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(
                    "TLS of the {whose}: new connections have the certificates read now"
                );
            }
            Err(why) => {
                tracing::warn!(
                    "TLS of the {whose}: still using the certificates read before: {why}"
                );
            }
        }
    }
}

/// Looks at the files as long as somebody has the configuration.
async fn watch<T: Send + Sync + 'static>(live: Weak<Live<T>>, has_looked: watch::Sender<bool>) {
    if !*has_looked.borrow() {
        let Some(live) = live.upgrade() else { return };
        // Twice: who waits takes what is there now, and it need not settle for longer.
        let looking = spawn_blocking(move || {
            live.look();
            live.look();
        });
        let _ = looking.await;
        has_looked.send_replace(true);
    }
    loop {
        sleep(LOOKS_EVERY).await;
        let Some(live) = live.upgrade() else { return };
        // One look at a time: of a file system that hangs, one thread waits.
        let _ = spawn_blocking(move || live.look()).await;
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pems.fmt(f)
    }
}

/// What was found in the files, or why they cannot be read.
type Found = Result<Contents, String>;

/// Which of what is found in the files is to be taken up, without IO.
struct Looks {
    /// What was taken up last.
    known: Found,
    /// What was found at the last look instead.
    next: Option<Found>,
}

impl Looks {
    /// What to take up: a change that two looks in a row have seen. Files of which some are written
    /// already and others are not, or one of them half, are not taken for the new ones.
    fn take(&mut self, found: Found) -> Option<&Found> {
        if found == self.known {
            self.next = None;
            return None;
        }
        if self.next.as_ref() != Some(&found) {
            self.next = Some(found);
            return None;
        }
        self.next = None;
        self.known = found;
        Some(&self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Found {
        let pem = super::super::pem::Pem::Given(text.as_bytes().into());
        Pems { ca: Some(pem), identity: None }.read()
    }

    #[test]
    fn a_change_is_taken_up_once_and_when_it_has_settled() {
        let mut looks = Looks { known: found("a"), next: None };
        let away = || Err("cannot read".to_owned());
        for (at, (seen, is_taken)) in [
            (found("a"), false),
            (found("b"), false),
            // Half of it was written at the look before.
            (found("bc"), false),
            (found("bc"), true),
            (found("bc"), false),
            // Gone for one look: it was being replaced.
            (away(), false),
            (found("bc"), false),
            // Gone for good, which is told once.
            (away(), false),
            (away(), true),
            (away(), false),
            (found("bc"), false),
            (found("bc"), true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(looks.take(seen).is_some(), is_taken, "look {at}");
        }
    }
}
