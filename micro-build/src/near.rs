//! The file that was meant, when one is not there.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

/// How many files and folders are looked at: the upper levels of a large tree.
const LOOKED_AT: usize = 2000;

/// From which likeness on, of 0 to 1, a name may be a slip of another.
const NEAR: f64 = 0.6;

/// The `.proto` file in `folders` whose name is most like that of `asked`, if one is like it: its
/// folder, and its path from there.
pub(crate) fn proto<'a>(asked: &Path, folders: &[&'a Path]) -> Option<(&'a Path, PathBuf)> {
    let path_of = |path: &Path| path.to_string_lossy().into_owned();
    let name_of = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (asked, asked_name) = (path_of(asked), name_of(asked));
    let alike = strsim::normalized_damerau_levenshtein;
    let files = folders.iter().flat_map(|folder| {
        protos_in(folder).into_iter().map(|file| {
            // Of files of one name, the one whose folder is most alike.
            let likeness = alike(&asked_name, &name_of(&file));
            (likeness, alike(&asked, &path_of(&file)), *folder, file)
        })
    });
    let files = files.filter(|(likeness, ..)| *likeness >= NEAR);
    let rank = |(name, path, ..): &(f64, f64, _, _)| (*name, *path);
    let nearest = files.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best });
    nearest.map(|(_, _, folder, file)| (folder, file))
}

/// The `.proto` files in a folder and those within, nearest levels first.
fn protos_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = VecDeque::from([folder.to_owned()]);
    let mut left = LOOKED_AT;
    while let Some(inner) = folders.pop_front() {
        let entries = fs::read_dir(inner).into_iter().flatten().flatten().take(left);
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        left -= paths.len();
        paths.sort();
        for path in paths {
            if path.extension().is_some_and(|extension| extension == "proto") {
                found.extend(path.strip_prefix(folder).map(Path::to_owned));
            } else if path.is_dir() && !path.is_symlink() {
                folders.push_back(path);
            }
        }
    }
    found
}
