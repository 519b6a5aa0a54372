//! The README's hello world, built from the README and run as it says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tests::{fault::free_address, programs::root};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The code blocks of a language, in order.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let ends = |block: &'a str| block.split_once("\n```").expect("a block ends").0;
    readme.split(start.as_str()).skip(1).map(ends).collect()
}

fn only<'a>(blocks: &[&'a str]) -> &'a str {
    assert_eq!(blocks.len(), 1, "one block of that language");
    blocks[0]
}

/// Writes the crate into `target`, with paths to micro that lead out of it.
fn write_crate(readme: &str) -> PathBuf {
    let dir = root().join("target/readme/hello");
    let [build, server, client] = blocks(readme, "rust")[..] else {
        panic!("three blocks of Rust: build.rs, the server, the client");
    };
    let manifest = only(&blocks(readme, "toml"));
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    };
    // A workspace of its own, with this project's versions and profile, so that what is built for
    // the other tests serves here too.
    let manifest = manifest.replace("../micro/", "../../../");
    write(
        "Cargo.toml",
        &format!("{manifest}\n\n[workspace]\n\n[profile.dev]\ndebug = \"line-tables-only\""),
    );
    write("build.rs", build);
    write("proto/greeter.proto", only(&blocks(readme, "proto")));
    write("src/bin/server.rs", server);
    write("src/bin/client.rs", client);
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    dir
}

fn build(dir: &Path) -> PathBuf {
    let target = root().join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--target-dir"]).arg(&target).current_dir(dir);
    assert!(cargo.status().unwrap().success(), "the README's hello world does not build");
    target.join("debug")
}

#[test]
fn the_hello_world_of_the_readme_builds_and_says_hello() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let programs = build(&write_crate(&readme));

    let addresses = [free_address(), free_address()];
    let registry = format!("static://greeter={}", addresses.join(","));
    let program = |name: &str| {
        let mut command = Command::new(programs.join(name));
        command.env("MICRO_REGISTRY", &registry).stdin(Stdio::null());
        command
    };
    let _servers = addresses.map(|address| Killed(program("server").arg(address).spawn().unwrap()));
    let output = program("client").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\n");
}
