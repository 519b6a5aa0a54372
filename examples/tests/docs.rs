//! The documentation of `micro` runs on generated code that is kept beside it, and leads to the
//! examples.

use std::{fs, path::Path};

#[test]
fn the_code_that_micros_docs_run_on_is_what_the_generators_write() {
    for (file, kept, written) in [
        (
            "greeter.v1.rs",
            include_str!("../../micro/src/doc/greeter.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/greeter.v1.rs")),
        ),
        (
            "echo.v1.rs",
            include_str!("../../micro/src/doc/echo.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/echo.v1.rs")),
        ),
        (
            "tonic-greeter.v1.rs",
            include_str!("../../micro/src/doc/tonic-greeter.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/tonic/greeter.v1.rs")),
        ),
    ] {
        assert!(kept == written, "copy the generated {file} to micro/src/doc/{file}");
    }
}

/// Every example is one idea in one file of under 80 lines, and found from where it is explained.
#[test]
fn each_example_is_short_listed_and_linked_from_the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the project");
    let read = |path: &Path| fs::read_to_string(path).expect("it can be read");
    let guide = root.join("micro/src/guide");
    let entries = |folder: &Path| fs::read_dir(folder).expect("the guide").map(Result::unwrap);
    let chapters = entries(&guide).chain(entries(&guide.join("registries")));
    let chapters = chapters.map(|entry| entry.path()).filter(|path| path.is_file());
    let guide = chapters.map(|path| read(&path)).collect::<String>();
    let sources = read(&root.join("micro/src/guide/examples.rs"));
    let list = read(&root.join("examples/README.md"));
    for entry in fs::read_dir(root.join("examples/src/bin")).expect("the examples") {
        let path = entry.expect("an example").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let lines = read(&path).lines().count();
        assert!(lines < 80, "{name} has {lines} lines");
        assert!(list.contains(name), "{name} is not in examples/README.md");
        let link = format!("(crate::guide::examples::{})", name.replace('-', "_"));
        assert!(guide.contains(&link), "{name} is not linked from the guide by {link}");
        assert!(sources.contains(&format!("\"{name}\"")), "the guide has no page of {name}");
    }
}
