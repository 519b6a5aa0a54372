//! Keeps the guide's page of errors true: `src/guide/errors.md` has every text that `micro` and
//! `micro-build` can fail with, and none besides.
//!
//! Which literals are texts of errors cannot be told by the constructors that they are given to:
//! many are made in parts, or handed through functions. So it is the other way round. The test
//! reads the source, token by token, and takes *every* string literal of two words or more for a
//! text, but for those that are plainly something else:
//!
//! - in tests (files declared under `#[cfg(test)]` among them), attributes and documentation;
//! - the values of [`source::HELP`], the fields that only `--help` shows;
//! - in log lines under the level of a warning, assertions, and panics that only a fault of our own
//!   brings about;
//! - what another's text is compared with: arguments of `contains` and the like, patterns, `==`;
//! - in [`source::WRITE_CODE`], files that generate code and make no error;
//! - in [`NOT_ERRORS`], one by one.
//!
//! A part of a text counts as a text of its own. Where the literal stands within `Error::config(..)`,
//! `Status::unavailable(..)`, `warn!(..)` or the like, the page has to name that kind too.
//!
//! The texts that tonic makes on streams have a section of their own; here each is brought about.

mod source;
mod tonic;

use std::collections::BTreeMap;

use source::Found;

const PAGE: &str = include_str!("../../src/guide/errors.md");

/// The heading of what tonic makes.
const TONICS: &str = "### From tonic, on streams\n";

/// What is no error, though it looks like the text of one.
const NOT_ERRORS: &[&str] = &[
    // What metrics are.
    "1 for the state that the registration is in, 0 for every other.",
    "Attempts of calls that have begun.",
    "Calls that have begun.",
    "Changes of the registration's state, by the state entered.",
    "Choices of a node for an attempt, by what came of them.",
    "Further attempts of a call that had any, after failures.",
    "Further attempts of a call that had any, after those that no handler has seen.",
    "Further attempts of a call that is hedged, if it had any.",
    "Further attempts that were not made, since there was no budget for them.",
    "How long a call that was tried again was not under way.",
    "How long attempts took, the choice of a node included.",
    "How long calls took, all their attempts together.",
    "Nodes that were ejected, by how they were found.",
    "The messages that an attempt received, together.",
    "The messages that an attempt sent, together.",
    "The nodes that calls may go to, by what they are in.",
    "Full reads of the service's records, by their outcome.",
    "How long calls took, from their headers to their end.",
    "How old the registry's last word is; 0 while all is followed.",
    "Records that are left out, by what is wrong with them.",
    "Renewals of the node's record, by their outcome.",
    "Service configs that calls do not go by, since they cannot be used.",
    "The messages that a call was answered with, together.",
    "The messages that came with a call, together.",
    "The nodes of the service that are known.",
    "The registry's last revision that was seen.",
    "Updates of the service's nodes that followed from what the registry told.",
    "When the node was registered or renewed last, since 1970.",
    "Whether all nodes have been read once: 1 or 0.",
    // How a channel stands, as `explain` and the log tell it.
    ".. at ..: .. for ..",
    ".. in flight",
    ".. more do not pass the filter",
    ".. records are left out",
    "a call is to try the ejected node",
    "draining (dialled anew in ..)",
    "ejected (..; .. more)",
    "ejected (..; a call is to try it)",
    "failures in a row",
    "in backoff (dialled again in ..)",
    "its success rate is far below the others'",
    "not well",
    "removed from the registry",
    "removed from the registry, and called for want of others",
    "revision .., no change for ..",
    ".. in this client's subset",
    ".. take calls",
    "Attempts to connect to a node that have failed.",
    "Attempts to connect to a node that have succeeded.",
    "Connections that take calls.",
    "Connections that take no more calls, by why.",
    "Further attempts that calls can pay for.",
    "GOAWAY CANCEL",
    "GOAWAY COMPRESSION_ERROR",
    "GOAWAY CONNECT_ERROR",
    "GOAWAY ENHANCE_YOUR_CALM",
    "GOAWAY FLOW_CONTROL_ERROR",
    "GOAWAY FRAME_SIZE_ERROR",
    "GOAWAY HTTP_1_1_REQUIRED",
    "GOAWAY INADEQUATE_SECURITY",
    "GOAWAY INTERNAL_ERROR",
    "GOAWAY NO_ERROR",
    "GOAWAY PROTOCOL_ERROR",
    "GOAWAY REFUSED_STREAM",
    "GOAWAY SETTINGS_TIMEOUT",
    "GOAWAY STREAM_CLOSED",
    "connection aborted",
    "connection reset",
    "connection timed out",
    "service '..': .. nodes in ..",
    "socket error",
    "subchannel shutdown",
    "the call that tried it again has failed",
    "the registry has been silent for ..",
    "the registry's last error: ..",
    "too many of its calls fail",
    "transport failures in a row",
    // Names of things, for the blanks of texts.
    "Service.ID == ..",
    "keep watching",
    "micro lease",
    "an accessor of ..",
    "an object",
    "client stub",
    "field `..` of message `..`",
    "field of type `bytes`",
    "field or variant",
    "handler trait",
    "message, enum or oneof",
    "message, enum or service",
    "node's id",
    "oneof `..` of message `..`",
    "rpc `..` of service `..`",
    "service name",
    "service's name",
    "the default",
    "the .. of service `..`",
    "the CA given",
    "the certificate given",
    "the key given",
    "the module of what is nested in message `..`",
    "the id",
    "the record",
    "the service's name",
    "the version",
    "there are none",
    "value `..` of enum `..`",
    // Exchanges with a registry, for the same.
    "deregister .. of service ..",
    "list services",
    "read service ..",
    "register .. of service ..",
    "renew .. of service ..",
    "watch service ..",
    // Hints, and names of things in Kubernetes.
    ".. .. of service ..",
    ".. has the Service .. alone",
    "pods/.. as ..",
    ".. has what a Service of that name in the namespace .. selects and is ready",
    "without a name",
    // What protox says, to be recognised.
    "but reached end of file",
    "conflicts with",
    "is already defined",
    "is defined twice",
    // Generated code.
    "// @generated by micro-build from ... Do not edit. ..",
    "enumeration = \"self::..\"",
    // Said by `--help`.
    ".. [env: ..] [default: ..]",
    "none, one must be named",
    "the program's, else ..",
    // Said of what cannot be.
    "not polled after it is ready",
    // Log lines of the level of information.
    "node is no longer picked",
    "node is ready",
];

#[test]
fn the_page_has_every_error_and_no_other() {
    let mut texts = source::texts();
    let unused: Vec<_> = NOT_ERRORS.iter().filter(|text| texts.remove(**text).is_none()).collect();
    assert!(unused.is_empty(), "no code has what NOT_ERRORS lists: {unused:#?}");
    let (ours, tonics_and_ours) = PAGE.split_once(TONICS).expect("the section");
    let (_, ours_too) = tonics_and_ours.split_once("\n### ").expect("a section after it");
    let rows = rows_of(&[ours, ours_too].concat());
    let missing: Vec<_> = texts
        .iter()
        .filter(|(text, _)| !rows.contains_key(*text))
        .map(|(text, Found { file, kinds })| {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            format!("| {} | {} | MEANING | REMEDY | <- {file}", code(text), kinds.join(", "))
        })
        .collect();
    assert!(
        missing.is_empty(),
        "src/guide/errors.md lacks {} texts; paste each into the table where a user meets it, in the \
         place of its old wording if it has one (or list it in NOT_ERRORS):\n{}",
        missing.len(),
        missing.join("\n"),
    );
    let gone: Vec<_> = rows.keys().filter(|text| !texts.contains_key(*text)).collect();
    assert!(gone.is_empty(), "src/guide/errors.md has texts that no code has: {gone:#?}");
    for (text, Found { file, kinds }) in &texts {
        let stated = &rows[text];
        for kind in kinds {
            assert!(stated.contains(kind), "{file} makes it {kind}, the page {stated}: {text}");
        }
    }
}

/// The kinds that the tables of the page, or of a part of it, give, by text.
fn rows_of(page: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [text, kind, meaning, remedy] = cells.as_slice() else {
            panic!("a row is text, kind, meaning and remedy: {line}");
        };
        let is_filled_in = ![*meaning, *remedy]
            .iter()
            .any(|cell| cell.is_empty() || cell.contains("MEANING") || cell.contains("REMEDY"));
        assert!(is_filled_in, "a row says what it means and what to do: {line}");
        let twice = rows.insert(text.trim_matches('`').trim().to_owned(), (*kind).to_owned());
        assert!(twice.is_none(), "the page has it twice: {text}");
    }
    rows
}

/// A text as code in Markdown, which may have backticks in it.
fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}
