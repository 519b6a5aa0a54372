//! Comments of a `.proto` as documentation in Rust.
//!
//! Comments are written for people, not for rustdoc: what is indented or fenced there would be
//! compiled as a Rust example by the user's `cargo test`, a `[field]` or `List<Item>` would be a
//! broken link or tag to `cargo doc`, and lists that continue on the next line are findings of
//! clippy's. So code blocks become text, signs stand for themselves, and lists are aligned.

/// What the generator itself links to begins a line with this.
pub(crate) const LINK: &str = "Each method is written as an `async fn`; [";

/// Signs that turn the direction of text, which rustc denies in comments.
const DIRECTIONS: [char; 9] = [
    '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}',
];

/// Rewrites every block of `///` lines in generated code.
pub(crate) fn tidy(code: &str) -> String {
    let mut tidied = String::with_capacity(code.len());
    let mut block = Block::default();
    for line in code.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(text) => block.push(text),
            None => {
                block.end(&mut tidied);
                tidied.push_str(line);
                tidied.push('\n');
            }
        }
    }
    block.end(&mut tidied);
    tidied
}

/// A run of documentation lines.
#[derive(Debug, Default)]
struct Block {
    /// The lines so far, rewritten.
    out: String,
    /// The fence that the comment opened.
    fence: Option<String>,
    /// Inside a fence that we opened around a block indented this far.
    code: Option<usize>,
    /// The items of nested lists that the line above is in: how far their text was indented, and
    /// how far it is.
    list: Vec<(usize, usize)>,
    after_blank: bool,
}

impl Block {
    fn push(&mut self, text: &str) {
        let text = text.replace('\t', "    ").replace('\r', " ").replace(DIRECTIONS, "");
        // One space belongs to the comment sign.
        let text = text.strip_prefix(' ').unwrap_or(&text).trim_end();
        let after_blank = self.out.is_empty() || self.after_blank;
        self.after_blank = text.is_empty();
        let indent = text.len() - text.trim_start().len();
        if let Some(fence) = &self.fence {
            let signs = text.trim_start();
            let is_end =
                signs.starts_with(fence) && signs.trim_start_matches(sign_of(fence)).is_empty();
            return if is_end { self.close_fence() } else { self.write(&unescaped(text)) };
        }
        if let Some((fence, language)) = fence(text) {
            self.close_code();
            self.list.clear();
            self.fence = Some(fence.to_owned());
            return self.write(&format!("{fence}{language}"));
        }
        if after_blank && !text.is_empty() {
            self.list.retain(|(was, _)| *was <= indent);
            let within = self.list.last().map_or(0, |(was, _)| *was);
            if indent >= within + 4 && self.code.is_none() {
                self.list.clear();
                self.write("```text");
                self.code = Some(indent);
            }
        }
        if let Some(code) = self.code {
            if indent >= 4 {
                return self.write(&unescaped(&text[indent.min(code)..]));
            }
            self.close_code();
        }
        self.prose(text, indent);
    }

    fn prose(&mut self, text: &str, indent: usize) {
        if text.is_empty() {
            return self.write("");
        }
        let width = marker(text);
        if width.is_some() {
            self.list.retain(|(was, _)| *was <= indent);
        }
        let column = self.list.last().map_or(0, |(_, column)| *column);
        if let Some(width) = width {
            self.list.push((indent + width, column + width));
        }
        let text = text.trim_start();
        let text = if text.starts_with(LINK) { text.to_owned() } else { escaped(text) };
        self.write(&format!("{}{text}", " ".repeat(column)));
    }

    fn write(&mut self, text: &str) {
        self.out.push_str("///");
        if !text.is_empty() {
            self.out.push(' ');
            self.out.push_str(text);
        }
        self.out.push('\n');
    }

    fn close_code(&mut self) {
        if self.code.take().is_some() {
            self.write("```");
        }
    }

    fn close_fence(&mut self) {
        if let Some(fence) = self.fence.take() {
            self.write(&fence);
        }
    }

    /// Appends the block, unless there is nothing in it.
    fn end(&mut self, tidied: &mut String) {
        self.close_code();
        self.close_fence();
        if self.out.lines().any(|line| line != "///") {
            tidied.push_str(&self.out);
        }
        *self = Self::default();
    }
}

/// What a fence is made of.
fn sign_of(fence: &str) -> char {
    if fence.starts_with('~') { '~' } else { '`' }
}

/// The fence that a line opens, and a language that rustdoc does not take for Rust.
fn fence(text: &str) -> Option<(&str, &str)> {
    const RUST: [&str; 8] = [
        "rust",
        "ignore",
        "no_run",
        "should_panic",
        "compile_fail",
        "test_harness",
        "custom",
        "standalone_crate",
    ];
    let text = text.trim_start();
    let length = text.len() - text.trim_start_matches(sign_of(text)).len();
    let (fence, info) = text.split_at(length);
    if length < 3 || fence.starts_with('`') && info.contains('`') {
        return None;
    }
    let language = info.split([' ', ',']).find(|part| !part.is_empty()).unwrap_or_default();
    let is_other = !language.is_empty()
        && language
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || b"+-#0123456789".contains(&byte))
        && !language.starts_with("edition")
        && !RUST.contains(&language);
    Some((fence, if is_other { language } else { "text" }))
}

/// Code as it was before `prost` escaped its brackets.
fn unescaped(code: &str) -> String {
    code.replace("\\[", "[").replace("\\]", "]")
}

/// Prose in which only code, emphasis, and links to a URL mean something to rustdoc.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if rest.starts_with('>') {
        out.push('\\');
    }
    // A list marker without text.
    if marker(&format!("{rest} ")) == Some(rest.len() + 1) {
        out.push_str(&rest[..rest.len() - 1]);
        out.push('\\');
        rest = &rest[rest.len() - 1..];
    }
    while let Some(at) = rest.find(['\\', '`', '<', '[']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let ticks = rest.len() - rest.trim_start_matches('`').len();
        let length = match rest.as_bytes()[0] {
            // With the sign after it, which is no more than that sign.
            b'\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            b'`' => match span(rest, ticks) {
                Some(length) => {
                    out.push_str(&unescaped(&rest[..length]));
                    rest = &rest[length..];
                    continue;
                }
                None => {
                    out.push_str(&"\\`".repeat(ticks));
                    rest = &rest[ticks..];
                    continue;
                }
            },
            b'<' if is_url(&rest[1..]) => 1,
            b'[' if is_link(rest) => 1,
            _ => {
                out.push('\\');
                1
            }
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out + rest
}

/// The length of the code that begins with this many ticks, if it ends on the line.
fn span(text: &str, ticks: usize) -> Option<usize> {
    let mut at = ticks;
    loop {
        at += text[at..].find('`')?;
        let run = text[at..].len() - text[at..].trim_start_matches('`').len();
        at += run;
        if run == ticks {
            return Some(at);
        }
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether this is `[text](url)`, around whose URL `prost` puts `<>`.
fn is_link(text: &str) -> bool {
    let end = text.find(']').and_then(|end| text[end + 1..].strip_prefix('('));
    end.is_some_and(|url| is_url(url.strip_prefix('<').unwrap_or(url)))
}

/// The width of the list marker that a line starts with: `- `, `* `, `+ `, `1. `, `1) `.
fn marker(text: &str) -> Option<usize> {
    let text = text.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let sign = match text.as_bytes().get(digits)? {
        b'.' | b')' if (1..10).contains(&digits) => digits + 1,
        b'-' | b'*' | b'+' if digits == 0 => 1,
        _ => return None,
    };
    (text.as_bytes().get(sign) == Some(&b' ')).then_some(sign + 1)
}

/// A comment as plain text, for the descriptor: without the space after the comment sign.
pub(crate) fn plain(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(given: &[&str], expected: &[&str]) {
        let given: String = given.iter().map(|line| format!("    ///{line}\n")).collect();
        let expected: String = expected.iter().map(|line| format!("///{line}\n")).collect();
        assert_eq!(tidy(&given), expected);
    }

    #[test]
    fn prose_stays_as_it_is() {
        becomes(&[" One.", "", " Two,", " three."], &[" One.", "", " Two,", " three."]);
    }

    #[test]
    fn indented_code_is_not_compiled_as_an_example() {
        becomes(
            &[" Such as:", "", "     {\"a\":", "       1}", " and so on."],
            &[" Such as:", "", " ```text", " {\"a\":", "   1}", " ```", " and so on."],
        );
    }

    #[test]
    fn an_indented_line_within_a_paragraph_is_part_of_it() {
        becomes(&[" One,", "      two."], &[" One,", " two."]);
    }

    #[test]
    fn a_fence_without_a_language_is_text_and_one_with_a_language_stays() {
        becomes(&[" ```", " x", " ```"], &[" ```text", " x", " ```"]);
        becomes(&[" ```rust", " x", " ```"], &[" ```text", " x", " ```"]);
        becomes(&[" ```json", "  {}", " ```"], &[" ```json", "  {}", " ```"]);
    }

    #[test]
    fn a_fence_ends_where_its_sign_stands_alone_as_often() {
        becomes(&[" ````", " ```", " x", " ````"], &[" ````text", " ```", " x", " ````"]);
        becomes(&[" ~~~", " ```", " ~~~ x", " ~~~"], &[" ~~~text", " ```", " ~~~ x", " ~~~"]);
        becomes(&[" ```a``` b"], &[" ```a``` b"]);
        becomes(&[" ```json,ignore", " ```"], &[" ```json", " ```"]);
        for rust in ["no_run", "edition2024", "{.x}", "E0123"] {
            becomes(&[&format!(" ```{rust}"), " ```"], &[" ```text", " ```"]);
        }
    }

    #[test]
    fn signs_that_rustdoc_would_take_for_links_or_tags_stand_for_themselves() {
        for (given, expected) in [
            ("a [field], \\[done\\] and [a][b]", "a \\[field], \\[done\\] and \\[a]\\[b]"),
            ("List<Item> <!-- <http://x.y>", "List\\<Item> \\<!-- <http://x.y>"),
            ("[x](<https://x.y>) [x](y)", "[x](<https://x.y>) \\[x](y)"),
            ("`a \\[0\\] <b>` ``c ` [d]``", "`a [0] <b>` ``c ` [d]``"),
            ("`never <ended>", "\\`never \\<ended>"),
            ("> 0 is all", "\\> 0 is all"),
            ("-", "\\-"),
            ("12.", "12\\."),
            ("ends with \\", "ends with \\"),
        ] {
            becomes(&[&format!(" {given}")], &[&format!(" {expected}")]);
        }
        becomes(&[" ```", " \\[0\\] <b>", " ```"], &[" ```text", " [0] <b>", " ```"]);
        becomes(&[&format!(" {LINK}`f`].")], &[&format!(" {LINK}`f`].")]);
    }

    #[test]
    fn a_fence_that_is_never_closed_is_closed() {
        becomes(&[" ```json", " {}"], &[" ```json", " {}", " ```"]);
        becomes(&["", "      x"], &["", " ```text", " x", " ```"]);
    }

    #[test]
    fn lists_are_aligned_as_clippy_wants_them() {
        becomes(
            &[
                " - one",
                " goes on",
                "      and on",
                "   - inner",
                " 12. other",
                " more",
                "",
                " - other",
                "",
                "   - inner, too",
                "",
                " End.",
            ],
            &[
                " - one",
                "   goes on",
                "   and on",
                "   - inner",
                " 12. other",
                "     more",
                "",
                " - other",
                "",
                "   - inner, too",
                "",
                " End.",
            ],
        );
    }

    #[test]
    fn tabs_carriage_returns_and_turns_of_direction_do_not_reach_rust() {
        becomes(&[" a\tb\r c\u{202e}d"], &[" a    b  cd"]);
    }

    #[test]
    fn an_empty_comment_is_none() {
        becomes(&["", " "], &[]);
    }

    #[test]
    fn code_between_comments_is_left_alone() {
        assert_eq!(tidy("/// A.\nstruct A;\n"), "/// A.\nstruct A;\n");
    }
}
