//! A file with a service's config, read anew when it changes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    ServiceConfig,
    live_config::{LiveConfig, Source},
};
use crate::{
    Error,
    disk::{self, Found, Identity},
    metrics,
};

/// How often the file is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// The file, and the last good config that it had, whichever channel has read it.
#[derive(Debug, Clone)]
pub(super) struct ConfigFile {
    path: Arc<PathBuf>,
    good: Arc<Mutex<Option<ServiceConfig>>>,
}

impl ConfigFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Arc::new(path), good: Arc::default() }
    }

    /// # Errors
    /// `Config` when the file cannot be read, or is no service config.
    pub(super) fn read(&self) -> Result<(), Error> {
        let read = disk::read(&self.path, None).and_then(|found| match found {
            Found::Content(content, _) => self.parse(&content),
            Found::Unchanged | Found::Torn => Err(format!(
                "the service config {} is being written; start the program again",
                self.path.display()
            )),
        });
        *self.good() = Some(read.map_err(Error::config)?);
        Ok(())
    }

    fn good(&self) -> MutexGuard<'_, Option<ServiceConfig>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parse(&self, content: &[u8]) -> Result<ServiceConfig, String> {
        let text = str::from_utf8(content).map_err(|error| format!("is no JSON: {error}"));
        text.and_then(ServiceConfig::read)
            .map_err(|fault| format!("the service config {}: {fault}", self.path.display()))
    }

    /// Has this config say what the file says, as long as there is a channel to the service.
    pub(super) fn follow(&self, service: &str, live: &Arc<LiveConfig>) {
        live.say(Source::File, self.good().clone());
        let (file, live) = (self.clone(), Arc::downgrade(live));
        tokio::spawn(file.watch(service.to_owned(), live));
    }

    async fn watch(self, service: String, live: Weak<LiveConfig>) {
        let (mut known, mut content, mut told) = (None::<Identity>, None, None);
        loop {
            let (path, identity) = (self.path.clone(), known.clone());
            let found = tokio::task::spawn_blocking(move || disk::read(&path, identity.as_ref()));
            let found = found.await.unwrap_or_else(|error| Err(error.to_string()));
            let Some(live) = live.upgrade() else {
                return;
            };
            let read = match found {
                Ok(Found::Unchanged | Found::Torn) => None,
                Ok(Found::Content(new, identity)) => {
                    known = identity;
                    let new = Some(new);
                    let read = new.as_deref().filter(|_| new != content).map(|it| self.parse(it));
                    content = new;
                    read
                }
                Err(fault) => {
                    // What comes back is read, whatever it is.
                    (known, content) = (None, None);
                    Some(Err(fault))
                }
            };
            match read {
                None => {}
                Some(Ok(config)) => {
                    told = None;
                    *self.good() = Some(config.clone());
                    live.say(Source::File, Some(config));
                }
                Some(Err(fault)) if told.as_ref() == Some(&fault) => {}
                Some(Err(fault)) => {
                    tracing::warn!(service, "still going by the last good service config: {fault}");
                    metrics::service_config_refused(&service, "file");
                    told = Some(fault);
                }
            }
            drop(live);
            sleep(LOOKS_EVERY).await;
        }
    }
}
