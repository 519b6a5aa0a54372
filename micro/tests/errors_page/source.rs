//! The source of `micro` and `micro-build`, and the texts in it: all literals of two words or more, but
//! for those that are plainly something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Files whose literals become generated code.
const WRITE_CODE: &[&str] =
    &["micro-build/src/service.rs", "micro-build/src/service/descriptor.rs"];

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

/// Where a text is made, and as which kinds or codes.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) file: String,
    pub(crate) kinds: BTreeSet<String>,
}

/// What may be texts of errors.
pub(crate) fn texts() -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    for (file, source) in sources() {
        if !WRITE_CODE.contains(&file.as_str()) {
            let source = source.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
            Reader { file: &file, found: &mut found }.read(source, None);
        }
    }
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
