//! A file as it lies on the disk: read whole, or not at all, and told apart from what it was.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::Path,
    time::{Duration, SystemTime},
};

/// The largest file taken.
const MOST_BYTES: u64 = 1024 * 1024;

/// A file changed no longer ago than this may change once more within one tick of its clock, of
/// which no time stamp would tell.
const SETTLES: Duration = Duration::from_secs(2);

/// Whether a file is still the one that was read: another of these is another file, or was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Device, inode, and the time of the last change of either content or owner, where there are
    /// such: a rename, and a symbolic link that leads elsewhere, show in them.
    unix: Option<(u64, u64, i64, i64)>,
    modified: Option<SystemTime>,
    bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The file of that identity.
    Unchanged,
    /// It was written while it was read.
    Torn,
    /// The content, and its identity unless it may yet change without a new one.
    Content(Vec<u8>, Option<Identity>),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let unix = {
            use std::os::unix::fs::MetadataExt as _;
            Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let unix = None;
        Self { unix, modified: metadata.modified().ok(), bytes: metadata.len() }
    }

    /// By all of its time stamps: whoever copies a file with its times leaves an old one at what was
    /// written this moment.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now();
        let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > SETTLES);
        let changed = self.unix.map(|(_, _, seconds, _)| {
            // Rounded up to the next second, which is no matter here.
            let seconds = u64::try_from(seconds).ok()?.checked_add(1)?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        });
        self.modified.is_some_and(is_old) && changed.is_none_or(|at| at.is_some_and(is_old))
    }
}

/// Reads the file, unless it is `known`.
pub(crate) fn read(path: &Path, known: Option<&Identity>) -> Result<Found, String> {
    let fail = |error: io::Error| format!("cannot read {}: {error}", path.display());
    // By the path first: opening a pipe would wait for whoever writes to it.
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if known == Some(&Identity::of(&metadata)) {
        return Ok(Found::Unchanged);
    }
    let file = File::open(path).map_err(fail)?;
    let before = Identity::of(&file.metadata().map_err(fail)?);
    let mut content = Vec::new();
    (&file).take(MOST_BYTES + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > MOST_BYTES {
        let path = path.display();
        return Err(format!(
            "{path} has more than {MOST_BYTES} bytes, which is the most there may be"
        ));
    }
    if before != Identity::of(&file.metadata().map_err(fail)?) {
        return Ok(Found::Torn);
    }
    let identity = before.is_settled().then_some(before);
    Ok(Found::Content(content, identity))
}
