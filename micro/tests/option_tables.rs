//! Keeps the guide's tables of options true: the first table of a registry's page names the options of
//! its URL that the code knows, and none besides.
#![cfg(all(
    feature = "consul",
    feature = "dns",
    feature = "etcd",
    feature = "file",
    feature = "kubernetes",
    feature = "mdns",
    feature = "nacos",
    feature = "nats",
    feature = "zookeeper"
))]

use std::{collections::BTreeSet, fs, path::Path};

/// A URL of each kind that has options, without any.
const URLS: &[&str] = &[
    "consul://127.0.0.1:8500",
    "dns://greeter.example:50051",
    "etcd://127.0.0.1:2379",
    "file://nodes.toml",
    "kubernetes://default",
    "mdns://",
    "memory://option-tables",
    "nacos://127.0.0.1:8848",
    "nats://127.0.0.1:4222",
    "static://greeter=127.0.0.1:4001",
    "zookeeper://127.0.0.1:2181",
];

/// Those of every URL, which the page of all registries tells of.
const COMMON: [&str; 2] = ["cache", "max_stale"];

fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the error for an unknown option says that there is, without what all have.
fn known(url: &str) -> BTreeSet<String> {
    let text = match micro::registry::open(&format!("{url}?no-such-option=1")) {
        Ok(_) => panic!("{url} takes an unknown option"),
        Err(error) => error.to_string(),
    };
    let (_, options) = text
        .split_once("knows ")
        .or_else(|| text.split_once("takes none but "))
        .unwrap_or_else(|| panic!("{url}: the error names no options: {text}"));
    let all: BTreeSet<_> = options.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    assert!(COMMON.iter().all(|option| all.contains(option)), "{url}: {text}");
    all.into_iter()
        .filter(|word| *word != "and" && !COMMON.contains(word))
        .map(str::to_owned)
        .collect()
}

/// The options in the first column of the page's first table.
fn told(page: &str) -> BTreeSet<String> {
    let rows = page.lines().skip_while(|line| !line.starts_with('|'));
    let cells =
        rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    let code = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = code.filter_map(|code| code.split('=').next());
    let is_option = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    names.filter(is_option).map(str::to_owned).collect()
}

#[test]
fn the_table_of_each_page_has_the_options_of_the_code() {
    for url in URLS {
        let (scheme, _) = url.split_once("://").expect("a URL");
        assert_eq!(told(&page(&format!("registries/{scheme}.md"))), known(url), "{scheme}.md");
    }
}

#[test]
fn the_page_of_all_registries_has_the_options_that_all_have() {
    let page = page("registries.md");
    for option in COMMON {
        assert!(page.contains(&format!("- `{option}=")), "{option}");
    }
}
