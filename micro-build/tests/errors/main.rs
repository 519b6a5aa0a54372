//! What stops a build: one message that names file, line and remedy.

use std::{fs, panic::Location, path::Path};

use micro_build::Builder;
use tempfile::TempDir;

mod clashes;
mod options;
mod protos;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// What stops the build of `a.proto` in a folder with these files, the folder being `DIR`.
#[track_caller]
fn stopped_by(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    stopped(micro_build::configure(), folder.path(), &["a.proto"], &[folder.path()])
}

#[track_caller]
fn stopped(
    builder: Builder,
    folder: &Path,
    protos: &[&str],
    includes: &[impl AsRef<Path>],
) -> String {
    let error = builder.out_dir(folder).compile_protos(protos, includes).unwrap_err();
    assert_eq!(format!("{error}"), format!("{error:?}"), "`main` prints the `Debug` of an error");
    let message = error.to_string().replace(folder.to_str().unwrap(), "DIR");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// A message without the file and line of the call in the test's file.
#[track_caller]
fn of_the_build_script(message: &str) -> &str {
    let (at, rest) = message.split_once(": ").unwrap();
    let file = Location::caller().file();
    assert!(at.starts_with(file) && at.len() > file.len() + 1, "{message}");
    rest
}

const HEAD: &str = "syntax = \"proto3\";\npackage a;\nmessage M {}\n";

fn proto(rest: &str) -> String {
    format!("{HEAD}{rest}")
}
