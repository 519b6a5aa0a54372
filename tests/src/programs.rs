//! The programs that tests start.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the project")
}

/// A program of this crate or of the examples, beside the test that asks for it.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    // A test is in target/PROFILE/deps, a program in target/PROFILE.
    let path =
        own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    path.unwrap_or_else(|| panic!("{name} has not been built: no such file near {}", own.display()))
}

/// A server, tool or peer that `tests/servers/get` brings.
///
/// # Panics
/// When it is not there.
pub fn server(name: &str) -> PathBuf {
    let dir = |variable| std::env::var_os(variable).map(PathBuf::from);
    let cache = || dir("XDG_CACHE_HOME").or_else(|| Some(dir("HOME")?.join(".cache")));
    let servers = dir("MICRO_TEST_BIN").or_else(|| Some(cache()?.join("micro/servers")));
    let path = servers.expect("MICRO_TEST_BIN or HOME is set").join(name);
    assert!(path.exists(), "{} is not there; run: tests/servers/get all", path.display());
    path
}

/// Builds the examples, with every registry they can use.
///
/// # Panics
/// When they do not build.
pub fn build_examples() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "examples", "--bins", "--all-features"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(root()).status().expect("cargo runs");
    assert!(status.success(), "the examples do not build");
}
