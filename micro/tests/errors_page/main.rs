//! Keeps the guide's page of errors true: `src/guide/errors.md` has every text that `micro` and
//! `micro-build` can fail with, and none besides.
//!
//! Which literals are texts of errors cannot be told by the constructors that they are given to:
//! many are made in parts, or handed through functions. So it is the other way round. The test
//! reads the source, token by token, and takes *every* string literal of two words or more for a
//! text, but for those that are plainly something else:
//!
//! - in tests (files declared under `#[cfg(test)]` among them), attributes and documentation;
//! - the values of [`HELP`], the fields that only `--help` shows;
//! - in log lines under the level of a warning, assertions, and panics that only a fault of our own
//!   brings about;
//! - what another's text is compared with: arguments of `contains` and the like, patterns, `==`;
//! - in [`WRITE_CODE`], files that generate code and make no error;
//! - in [`NOT_ERRORS`], one by one.
//!
//! A part of a text counts as a text of its own. Where the literal stands within `Error::config(..)`,
//! `Status::unavailable(..)`, `warn!(..)` or the like, the page has to name that kind too.
//!
//! The texts that tonic makes on streams have a section of their own; here each is brought about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use micro::{Request, Status, Streaming};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

const PAGE: &str = include_str!("../src/guide/errors.md");

/// The heading of what tonic makes.
const TONICS: &str = "### From tonic, on streams\n";

/// Files whose literals become generated code.
const WRITE_CODE: &[&str] =
    &["micro-build/src/service.rs", "micro-build/src/service/descriptor.rs"];

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
    "The messages that a call was answered with, together.",
    "The messages that came with a call, together.",
    "The nodes of the service that are known.",
    "The registry's last revision that was seen.",
    "Updates of the service's nodes that followed from what the registry told.",
    "When the node was registered or renewed last, since 1970.",
    "Whether all nodes have been read once: 1 or 0.",
    // How a channel stands, as `explain` and the log tell it.
    ".. at ..: .. for ..",
    ".. in flight, health ..",
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
    "service '..': .. nodes in .., .. take calls",
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

/// Macros whose texts are for the log, or for whoever has broken the code.
const ASIDE: &[&str] = &[
    "trace",
    "debug",
    "info",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "panic",
    "unreachable",
];

/// Methods whose arguments are others' texts, or say why what goes before cannot fail.
const COMPARE: &[&str] = &[
    "contains",
    "ends_with",
    "expect",
    "split_once",
    "starts_with",
    "strip_prefix",
    "strip_suffix",
];

/// Fields of the table of settings whose texts are for `--help`; its forms are for errors.
const HELP: &[&str] = &["help", "default"];

#[test]
fn the_page_has_every_error_and_no_other() {
    let texts = texts_of_the_source();
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

#[tokio::test]
async fn the_section_on_tonic_has_what_tonic_says() {
    let (_, section) = PAGE.split_once(TONICS).expect("the section");
    let rows = rows_of(section.split_once("\n### ").expect("a section after it").0);
    let whole = frame(0, b"\x0a\x03one");
    let ok = [("grpc-status", "0")];
    let mut statuses = vec![
        answered(&[], &whole, &[]).await,
        answered(&[], b"", &ok).await,
        answered(&[], &frame(0, b"\xff"), &ok).await,
        answered(&[("grpc-encoding", "gzip")], &whole, &ok).await,
        answered(&[], &frame(1, b""), &ok).await,
        answered(&[], &frame(7, b""), &ok).await,
        answered(&[("grpc-status", "5"), ("grpc-message", "%ff")], b"", &[]).await,
        answered(&[], &whole[..7], &[]).await,
        answered(&[], &frame(0, &[0; LIMIT + 1]), &ok).await,
        call("x".repeat(LIMIT + 1), http::Response::default()).await,
    ];
    let request = Full::new(Bytes::from(frame(7, b"")));
    let decoder = tonic::codec::Codec::decoder(&mut Codec::default());
    let mut requests = Streaming::new_request(decoder, request, None, None);
    statuses.push(requests.message().await.expect_err("no flag"));

    let mut said = BTreeSet::new();
    for status in statuses {
        let is_of = |text: &&String| is_filled_in(text, status.message());
        let text = rows.keys().find(is_of).unwrap_or_else(|| panic!("no row has it: {status:?}"));
        assert!(rows[text].contains(&format!("{:?}", status.code())), "{text}: {status:?}");
        said.insert(text);
    }
    let unsaid: Vec<_> = rows.keys().filter(|text| !said.contains(text)).collect();
    assert!(
        unsaid.is_empty(),
        "src/guide/errors.md has texts that tonic does not say: {unsaid:#?}"
    );
}

/// How large the messages of [`answered`] may be.
const LIMIT: usize = 100;

type Codec = tonic_prost::ProstCodec<String, String>;

/// What tonic makes of a response, to a call with a stream of requests.
async fn answered(
    headers: &[(&'static str, &str)],
    body: &[u8],
    trailers: &[(&'static str, &str)],
) -> Status {
    let map = |pairs: &[(&'static str, &str)]| {
        let pair = |&(name, value): &(_, &str)| {
            (http::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect::<http::HeaderMap>()
    };
    let trailers = Some(map(trailers)).filter(|trailers| !trailers.is_empty());
    let body = Full::new(Bytes::copy_from_slice(body));
    let body = body.with_trailers(std::future::ready(trailers.map(Ok)));
    let mut response = http::Response::new(tonic::body::Body::new(body));
    *response.headers_mut() = map(headers);
    call("one".to_owned(), response).await
}

async fn call(message: String, response: http::Response<tonic::body::Body>) -> Status {
    let mut response = Some(response);
    let answers = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let response = response.take().expect("one call");
        async move { request.into_body().collect().await.map(|_| response) }
    });
    let mut grpc = tonic::client::Grpc::new(answers)
        .max_decoding_message_size(LIMIT)
        .max_encoding_message_size(LIMIT);
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Up");
    let requests = Request::new(tokio_stream::iter([message]));
    let answer = grpc.client_streaming(requests, path, Codec::default()).await;
    answer.map(|answer: micro::Response<String>| answer.into_inner()).expect_err("it fails")
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("it is small"));
    frame.put_slice(message);
    frame.to_vec()
}

/// Whether `said` is the text with something for each `..`.
fn is_filled_in(text: &str, said: &str) -> bool {
    let mut rest = said;
    let mut parts = text.split("..");
    let starts = parts.next().is_some_and(|first| rest.starts_with(first));
    starts
        && parts.all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
}

#[test]
fn what_writes_code_makes_no_error() {
    let sources = sources();
    for file in WRITE_CODE {
        let source = sources.get(*file).unwrap_or_else(|| panic!("{file} is not there"));
        assert!(!source.contains("Error::new("), "{file} is to be read for the page of errors");
    }
}

#[test]
fn the_reader_tells_errors_from_what_else_is_in_the_source() {
    let source = r#"
        //! Words of documentation.
        #[expect(dead_code, reason = "it is an example")]
        fn f(text: &str) -> Result<(), Error> {
            tracing::debug!("a log line of {}", 1);
            tracing::warn!(%text, "a warning of {}", 1);
            text.parse().expect("a reason to trust");
            if text == "not ours" || text.contains("nor is this") { return Ok(()) }
            let part = match text { "neither here" => "the first part", _ => "word" };
            tokio::select! { _ = x => { info!("or here"); return Err(Status::not_found("no such thing")) } }
            Err(Error::new(ErrorKind::Bind, format!("cannot bind {text:?}: {}, \
                100%{{}}", part)))
        }
        #[cfg(test)]
        mod tests { fn g() { Error::config("made in a test"); } }
        #[cfg(test)]
        mod out_of_line;
        fn h() { url.error("a fault in it") }
        const ENTRY: Entry = Entry { form: "a form of it", help: "What it is", default: "not set" };
    "#;
    let mut found = BTreeMap::new();
    Reader { file: "f.rs", found: &mut found }.read(source.parse().expect("Rust"), None);
    let found: Vec<_> = found
        .iter()
        .map(|(text, found)| (text.as_str(), found.kinds.iter().map(String::as_str).collect()))
        .collect::<Vec<(_, Vec<_>)>>();
    assert_eq!(
        found,
        [
            ("a fault in it", vec!["Config"]),
            ("a form of it", vec![]),
            ("a warning of ..", vec!["log"]),
            ("cannot bind ..: .., 100%{}", vec!["Bind"]),
            ("no such thing", vec!["NotFound"]),
            ("the first part", vec![]),
        ]
    );
}

/// Where a text is made, and as which kinds or codes.
#[derive(Debug, Default)]
struct Found {
    file: String,
    kinds: BTreeSet<String>,
}

fn texts_of_the_source() -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    for (file, source) in sources() {
        if !WRITE_CODE.contains(&file.as_str()) {
            let source = source.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
            Reader { file: &file, found: &mut found }.read(source, None);
        }
    }
    let unused: Vec<_> = NOT_ERRORS.iter().filter(|text| found.remove(**text).is_none()).collect();
    assert!(unused.is_empty(), "no code has what NOT_ERRORS lists: {unused:#?}");
    found
}

/// The source by its path in the workspace, without what is only for tests.
fn sources() -> BTreeMap<String, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut sources = BTreeMap::new();
    let mut folders = vec![workspace.join("micro/src"), workspace.join("micro-build/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            if matches!(name, "tests" | "fixture" | "doc" | "testing") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("a file");
                let path = path.strip_prefix(workspace).expect("within it").display().to_string();
                sources.insert(path, source);
            }
        }
    }
    let tests: Vec<_> = sources.iter().flat_map(|(path, source)| tests_of(path, source)).collect();
    for path in tests {
        sources.remove(&path);
    }
    sources
}

/// The files of the modules that a file declares only for tests.
fn tests_of(path: &str, source: &str) -> Vec<String> {
    let path = Path::new(path);
    let folder = match path.file_stem().and_then(|name| name.to_str()) {
        Some("mod" | "lib") => path.parent().expect("a folder").to_owned(),
        _ => path.with_extension(""),
    };
    let after = source.split("#[cfg(test)]").skip(1);
    let names = after.filter_map(|rest| rest.trim_start().strip_prefix("mod ")?.split_once(';'));
    let names = names.map(|(name, _)| name).filter(|name| !name.contains(char::is_whitespace));
    names.map(|name| folder.join(name).with_extension("rs").display().to_string()).collect()
}

struct Reader<'a> {
    file: &'a str,
    found: &'a mut BTreeMap<String, Found>,
}

impl Reader<'_> {
    /// Notes the texts in `tokens`, which are arguments of the constructor of `kind`.
    fn read(&mut self, tokens: TokenStream, kind: Option<&str>) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let before = &tokens[..at];
            at += 1;
            match token {
                TokenTree::Group(group) if is_attribute(before, group) => {
                    if group.stream().to_string().replace(' ', "") == "cfg(test)" {
                        at += length_of_item(&tokens[at..]);
                    }
                }
                TokenTree::Group(_) if is_aside(before) => {}
                TokenTree::Group(group) => {
                    let constructed = constructor(before, group);
                    self.read(group.stream(), constructed.as_deref().or(kind));
                }
                TokenTree::Literal(literal) => {
                    let is_compared = ends_with(before, "==")
                        || ends_with(before, "!=")
                        || is_punct(tokens.get(at), '=') && is_punct(tokens.get(at + 1), '>')
                        || is_punct(tokens.get(at), '|');
                    let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                    if let (Ok(text), false) = (text, is_help(before) || is_compared) {
                        self.note(&text.value(), kind);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }

    fn note(&mut self, text: &str, kind: Option<&str>) {
        let text = plain(text);
        let words = text.split(|c: char| !c.is_ascii_alphabetic());
        if words.filter(|word| word.len() > 1).count() < 2 || !text.contains(' ') {
            return;
        }
        let found = self.found.entry(text).or_default();
        self.file.clone_into(&mut found.file);
        found.kinds.extend(kind.map(str::to_owned));
    }
}

/// A text with `..` for whatever is filled in, and without the punctuation that joins it to others.
fn plain(text: &str) -> String {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut parts = text.split('{');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.extend(["..", part.split_once('}').map_or("", |(_, rest)| rest)]);
    }
    let plain = plain.replace('\u{1}', "{").replace('\u{2}', "}");
    // Two blanks side by side, of which one may be empty, read as one.
    let plain = plain.replace("....", "..");
    let plain = plain.trim_matches([' ', ':', ';', ',', '\n']);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Whether the tokens, written without spaces, end in `text`.
fn ends_with(tokens: &[TokenTree], text: &str) -> bool {
    let last = &tokens[tokens.len().saturating_sub(text.len())..];
    let last: String = last.iter().map(ToString::to_string).collect();
    last.ends_with(text)
}

fn is_attribute(before: &[TokenTree], group: &Group) -> bool {
    group.delimiter() == Delimiter::Bracket && (ends_with(before, "#") || ends_with(before, "#!"))
}

/// Whether what follows is the value of a field that is not for errors.
fn is_help(before: &[TokenTree]) -> bool {
    let [.., TokenTree::Ident(field), colon] = before else {
        return false;
    };
    is_punct(Some(colon), ':') && HELP.contains(&field.to_string().as_str())
}

/// Whether what follows are the arguments of a macro or method whose texts are no errors.
fn is_aside(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Ident(name), TokenTree::Punct(punct)] if punct.as_char() == '!' => {
            ASIDE.contains(&name.to_string().as_str())
        }
        [.., TokenTree::Punct(punct), TokenTree::Ident(name)] if punct.as_char() == '.' => {
            COMPARE.contains(&name.to_string().as_str())
        }
        _ => false,
    }
}

/// The kind or code of the error that a call makes; `build` for one of `micro-build`.
fn constructor(before: &[TokenTree], arguments: &Group) -> Option<String> {
    if arguments.delimiter() != Delimiter::Parenthesis {
        return None;
    }
    if ends_with(before, "url.error") || ends_with(before, "self.error") {
        return Some("Config".to_owned());
    }
    if let [.., TokenTree::Ident(name), TokenTree::Punct(punct)] = before
        && punct.as_char() == '!'
        && (name == "warn" || name == "error")
    {
        return Some("log".to_owned());
    }
    let [.., TokenTree::Ident(of), colon, _, TokenTree::Ident(name)] = before else {
        return None;
    };
    if !is_punct(Some(colon), ':') {
        return None;
    }
    match (of.to_string().as_str(), name.to_string().as_str()) {
        ("Error", "new") => {
            let arguments = arguments.stream().to_string().replace(' ', "");
            let kind =
                arguments.strip_prefix("ErrorKind::").and_then(|kind| kind.split(',').next());
            Some(kind.unwrap_or("build").to_owned())
        }
        ("Status", "new" | "from_error") => None,
        ("Error", name @ ("config" | "registry")) | ("Status", name) => {
            let words = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            Some(words.collect())
        }
        _ => None,
    }
}

/// How many tokens there are of the item that an attribute belongs to.
fn length_of_item(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
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
