//! Projects outside of the workspace, built as their users would build them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::programs::root;

/// A copy of one of this project's folders that is a project of its own, beneath `target`.
#[derive(Debug)]
pub struct Project {
    dir: PathBuf,
}

impl Project {
    /// Copies `folder` to `target/projects/NAME`, with the versions that the workspace is locked to.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy(folder: &str, name: &str) -> Self {
        let dir = root().join("target/projects").join(name);
        let _ = fs::remove_dir_all(&dir);
        copy(&root().join(folder), &dir);
        let manifest = dir.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("a project has a manifest");
        // The copy is one folder further down than `examples/template`.
        fs::write(&manifest, text.replace("\"../../", "\"../../../")).expect("it can be written");
        fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).expect("it can be written");
        Self { dir }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has its dependencies at hand, so that a build asks nobody for them.
    ///
    /// # Panics
    /// When they cannot be had.
    pub fn fetch(&self) {
        self.cargo(["fetch", "--quiet"]);
    }

    /// Builds its programs into `target`, and returns the folder that they are in.
    ///
    /// # Panics
    /// When they do not build.
    pub fn build(&self, target: &Path) -> PathBuf {
        let target_dir = target.to_str().expect("a path in UTF-8");
        self.cargo(["build", "--quiet", "--offline", "--target-dir", target_dir]);
        target.join("debug")
    }

    /// How many packages are built for it, itself included.
    ///
    /// # Panics
    /// When cargo does not tell.
    pub fn packages(&self) -> usize {
        let edges = ["tree", "--offline", "--edges", "normal,build", "--prefix", "none"];
        let tree = self.cargo([&edges[..], &["--no-dedupe", "--format", "{p}"]].concat());
        let packages: std::collections::BTreeSet<_> =
            tree.lines().map(|line| line.trim_end_matches(" (proc-macro)")).collect();
        packages.len()
    }

    fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let mut cargo = Command::new(env!("CARGO"));
        let output = cargo.args(arguments).current_dir(&self.dir).output().expect("cargo runs");
        assert!(output.status.success(), "{cargo:?}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("cargo prints text")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("it can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            if entry.file_name() != "target" {
                copy(&from, &to);
            }
        } else {
            fs::copy(&from, &to).expect("a file can be copied");
        }
    }
}
