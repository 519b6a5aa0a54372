//! Reads and writes a file for all of a process.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use super::{
    Key,
    contents::{self, Contents, Fault},
    pending::{GATHER, Pending, Told},
    wall,
};
use crate::registry::Node;

/// What a process has to do with one file.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    pending: Mutex<Pending>,
    /// What was read last, shortly: services are started many at a time.
    loaded: tokio::sync::Mutex<Option<(Instant, Arc<Contents>)>>,
}

impl Writer {
    pub(super) fn of(path: PathBuf) -> Arc<Self> {
        static WRITERS: Mutex<BTreeMap<PathBuf, Weak<Writer>>> = Mutex::new(BTreeMap::new());
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(&path).and_then(Weak::upgrade) {
            return writer;
        }
        writers.retain(|_, writer| writer.strong_count() > 0);
        let (pending, loaded) = (Mutex::default(), tokio::sync::Mutex::default());
        let writer = Arc::new(Self { path: path.clone(), pending, loaded });
        writers.insert(path, Arc::downgrade(&writer));
        writer
    }

    /// What the file has.
    pub(super) async fn load(self: Arc<Self>) -> Arc<Contents> {
        let mut loaded = self.loaded.lock().await;
        if let Some((at, contents)) = &*loaded
            && at.elapsed() < GATHER
        {
            return contents.clone();
        }
        let path = self.path.clone();
        let read = spawn_blocking(move || Contents::read(&path)).await;
        let contents = match read.map_err(|error| Fault::Unread(io::Error::other(error))).flatten()
        {
            Ok(contents) => contents,
            Err(fault) => {
                let path = self.path.display();
                match fault {
                    Fault::Missing => {}
                    Fault::Foreign(error) => warn!("discovery: {path} is no cache: {error}"),
                    Fault::Unread(error) => warn!("discovery: {path} is not read: {error}"),
                }
                Contents::default()
            }
        };
        let contents = Arc::new(contents);
        *loaded = Some((Instant::now(), contents.clone()));
        drop(loaded);
        tokio::spawn(async move {
            sleep(GATHER).await;
            self.loaded.lock().await.take_if(|(at, _)| at.elapsed() >= GATHER);
        });
        contents
    }

    /// Has these written, in time.
    pub(super) fn tell(
        self: &Arc<Self>,
        key: Key,
        nodes: Vec<Arc<Node>>,
        at: u64,
        refresh: Duration,
    ) {
        let told = Told { key, nodes, at };
        if self.pending().told(Instant::now(), told, refresh) {
            tokio::spawn(Turn { writer: self.clone(), is_over: false }.write());
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who writes, while there is something to write.
struct Turn {
    writer: Arc<Writer>,
    is_over: bool,
}

impl Turn {
    async fn write(mut self) {
        while let Some(at) = self.next() {
            sleep_until(at).await;
            let told = self.writer.pending().take(Instant::now());
            let path = self.writer.path.clone();
            let written = spawn_blocking(move || contents::write(&path, told, wall())).await;
            match written.map_err(io::Error::other).flatten() {
                Ok(()) => self.writer.pending().written(),
                Err(error) => {
                    if self.writer.pending().failed(Instant::now()) {
                        warn!("discovery: {} is not written: {error}", self.writer.path.display());
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Option<Instant> {
        let next = self.writer.pending().next();
        self.is_over = next.is_none();
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.writer.pending().abandoned(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{super::Cache, *};
    use crate::fixture::Log;

    fn nodes(service: &str, id: &str) -> Vec<Arc<Node>> {
        vec![Arc::new(Node::new(service, id, "127.0.0.1:1"))]
    }

    /// Time goes on, in these tests, when the file has been written.
    async fn written() {
        sleep(2 * GATHER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_services_of_a_process_are_written_together_and_unchanged_ones_not_again() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        let cache = |n: u32| Cache::new(path.clone(), "x", &format!("s{n}"), None);
        let caches: Vec<_> = (0..1_000).map(cache).collect();
        let tell = || {
            for cache in &caches {
                cache.tell(nodes(&cache.key.1, "1"));
            }
        };
        tell();
        assert!(Arc::ptr_eq(&caches[0].writer, &caches[999].writer));
        written().await;
        for cache in &caches {
            let (found, _) = cache.clone().load().await.expect("the first write has it");
            assert_eq!(found, nodes(&cache.key.1, "1"));
        }
        fs::remove_file(&path).unwrap();
        tell();
        written().await;
        assert!(!path.exists(), "nothing has changed");
        caches[0].tell(nodes("s0", "2"));
        // Whoever followed them may be gone by then.
        drop(caches);
        written().await;
        assert_eq!(cache(0).load().await.unwrap().0, nodes("s0", "2"));
        assert_eq!(cache(999).load().await.unwrap().0, nodes("s999", "1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_no_cache_or_is_not_written_is_told_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        fs::write(&path, "{").unwrap();
        let log = Log::down_to(tracing::Level::WARN);
        let [one, two] = ["a", "b"].map(|it| Cache::new(path.clone(), "x", it, None));
        assert!(one.clone().load().await.is_none() && two.clone().load().await.is_none());
        assert_eq!(log.lines_with("is no cache").len(), 1);

        let gone = TempDir::new().unwrap();
        let path = gone.path().join("folder").join("cache.json");
        let cache = Cache::new(path.clone(), "x", "a", None);
        for id in ["1", "2", "3"] {
            cache.tell(nodes("a", id));
            sleep(Duration::from_secs(120)).await;
        }
        assert_eq!(log.lines_with("is not written").len(), 1);
        fs::create_dir(path.parent().unwrap()).unwrap();
        cache.tell(nodes("a", "3"));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(cache.load().await.unwrap().0, nodes("a", "3"), "as it was not written before");
    }

    #[test]
    fn a_writer_whose_runtime_ended_is_followed_by_another() {
        let dir = TempDir::new().unwrap();
        let cache = Cache::new(dir.path().join("cache.json"), "x", "a", None);
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().unwrap()
        };
        runtime().block_on(async { cache.tell(nodes("a", "1")) });
        runtime().block_on(async {
            cache.tell(nodes("a", "1"));
            sleep(Duration::from_secs(120)).await;
            assert_eq!(cache.clone().load().await.unwrap().0, nodes("a", "1"));
        });
    }
}
