//! The README's hello world is `examples/template`, which is built and run as a user would.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use tests::{programs::root, projects::Project};

const TEMPLATE: &str = "examples/template";

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

#[test]
fn the_readmes_hello_world_is_the_template() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (language, files) in [
        ("proto", &["proto/greeter.proto"][..]),
        ("toml", &["Cargo.toml"]),
        ("rust", &["build.rs", "src/bin/server.rs", "src/bin/client.rs"]),
    ] {
        let blocks = blocks(&readme, language);
        assert_eq!(blocks.len(), files.len(), "blocks of {language}");
        for (block, file) in blocks.into_iter().zip(files) {
            let text = fs::read_to_string(root().join(TEMPLATE).join(file)).unwrap();
            // Of the manifest, what a project of its own needs.
            let text = text.split("\n# A project of its own").next().unwrap();
            assert_eq!(block.trim_end(), text.trim_end(), "{file}");
        }
    }
}

#[test]
fn the_guides_build_script_is_the_templates() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let chapter = read("micro/src/guide/first_service.md");
    let [script] = blocks(&chapter, "ignore")[..] else { panic!("one block that is not compiled") };
    assert_eq!(script.trim_end(), read(&format!("{TEMPLATE}/build.rs")).trim_end());
}

/// A program of the template's, on mDNS unless told otherwise.
fn program(programs: &Path, name: &str) -> Command {
    let mut command = Command::new(programs.join(name));
    command.env_remove("MICRO_REGISTRY").stdin(Stdio::null());
    command
}

#[test]
fn the_template_builds_outside_of_the_workspace_and_says_hello() {
    let project = Project::copy(TEMPLATE, "hello");
    // With the workspace's own target folder: what is built for the other tests serves here too.
    let programs = project.build(&root().join("target"));

    let _servers = [(); 2].map(|()| Killed(program(&programs, "server").spawn().unwrap()));
    let output = program(&programs, "client").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\n");
}
