//! What the handlers of a node were given, written down so that it outlives the node.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::now;

/// A node's log of the ids its handlers were given.
///
/// One `write` a line and no buffer: what a handler saw before SIGKILL is in the file.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens the journal of the node `id` in `dir`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(dir: &Path, id: &str) -> io::Result<Self> {
        let path = dir.join(format!("{id}.journal"));
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    /// Writes down that a handler was given the call.
    pub fn begin(&self, call: u64) {
        self.line('+', call);
    }

    /// Writes down that the handler has its answer.
    pub fn end(&self, call: u64) {
        self.line('-', call);
    }

    /// When the node `id`, whose journal is in `dir`, was last given a call, if it was in a while.
    pub(super) fn last_begin(dir: &Path, id: &str) -> Option<Duration> {
        // The last few lines will do.
        let mut file = File::open(dir.join(format!("{id}.journal"))).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1024))).ok()?;
        let mut tail = String::new();
        file.read_to_string(&mut tail).ok()?;
        let line = tail.lines().rev().find(|line| line.contains(" + "))?;
        line.split(' ').next()?.parse().ok().map(Duration::from_micros)
    }

    fn line(&self, sign: char, call: u64) {
        let line = format!("{} {sign} {call}\n", now().as_micros());
        (&self.0).write_all(line.as_bytes()).expect("the journal takes a line");
    }
}

/// Journals that are read while they grow.
#[derive(Debug, Default)]
pub struct Following {
    read: HashMap<PathBuf, u64>,
}

impl Following {
    /// The visits in the journals of `dir` that began since the last time. One that had not ended then
    /// is not told again.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn visits(&mut self, dir: &Path) -> io::Result<Vec<Visit>> {
        let mut visits = Vec::new();
        for (node, path) in journals(dir)? {
            let mut file = File::open(&path)?;
            let read = self.read.entry(path).or_default();
            file.seek(SeekFrom::Start(*read))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            *read += text.len() as u64;
            visits.extend(Visit::parse(&node, &text));
        }
        Ok(visits)
    }
}

/// The names of the nodes that have a journal in `dir`, and where it is.
fn journals(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut journals = Vec::new();
    for file in dir.read_dir()? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            let node = path.file_stem().expect("a journal has a name").to_string_lossy();
            journals.push((node.into_owned(), path));
        }
    }
    Ok(journals)
}

/// A call that reached a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The id of the node.
    pub node: String,
    /// The id of the call.
    pub call: u64,
    /// When the handler was given it.
    pub began: Duration,
    /// When the handler had its answer; `None` if it never had.
    pub ended: Option<Duration>,
}

impl Visit {
    /// Every visit in the journals of `dir`.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn read_all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut visits = Vec::new();
        for (node, path) in journals(dir)? {
            visits.extend(Self::parse(&node, &std::fs::read_to_string(&path)?));
        }
        Ok(visits)
    }

    fn parse(node: &str, journal: &str) -> Vec<Self> {
        let mut visits: Vec<Self> = Vec::new();
        let mut open = HashMap::new();
        for line in journal.lines() {
            // A line cut short by SIGKILL would be the last; the kernel writes such short ones whole.
            let [at, sign, call] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{node}: not a journal's line: {line:?}");
            };
            let at = Duration::from_micros(at.parse().expect("a time"));
            let call = call.parse().expect("an id");
            if sign == "+" {
                open.insert(call, visits.len());
                visits.push(Self { node: node.to_owned(), call, began: at, ended: None });
            } else if let Some(index) = open.remove(&call) {
                visits[index].ended = Some(at);
            }
        }
        visits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_with_the_calls_that_never_ended() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "a-1").unwrap();
        journal.begin(1);
        journal.begin(2);
        journal.end(1);

        let visits = Visit::read_all(dir.path()).unwrap();
        let seen: Vec<_> =
            visits.iter().map(|v| (v.node.as_str(), v.call, v.ended.is_some())).collect();
        assert_eq!(seen, [("a-1", 1, true), ("a-1", 2, false)]);
    }

    #[test]
    fn who_follows_a_journal_reads_each_call_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "a-1").unwrap();
        let mut following = Following::default();
        let mut read = || {
            let visits = following.visits(dir.path()).unwrap();
            visits.iter().map(|visit| visit.call).collect::<Vec<_>>()
        };
        journal.begin(1);
        assert_eq!(read(), [1]);
        journal.end(1);
        journal.begin(2);
        assert_eq!(read(), [2]);
        assert_eq!(read(), [0; 0]);
    }
}
