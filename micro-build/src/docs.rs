//! Comments of a `.proto` as documentation in Rust.
//!
//! Comments are written for people, not for rustdoc: what is indented or fenced there would be
//! compiled as a Rust example by the user's `cargo test`, a `[field]` or `List<Item>` would be a
//! broken link or tag to `cargo doc`, and lists and quotes that continue on the next line are
//! findings of clippy's. So each comment is read as rustdoc would, by the parser that it uses, and
//! written anew: code as text, signs for themselves, every line below what it belongs to.

mod signs;

use std::{mem, ops::Range};

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use self::signs::{in_code, in_prose, marked};

/// Stands before a line that is not of the `.proto`. (An attribute in its place would not do: where
/// another crate of the build has `prost-build` format its code, that makes a comment of it.)
pub(crate) const OWN: char = '\u{e000}';

/// Rewrites every block of `///` lines in generated code, but for our [own](OWN).
pub(crate) fn tidy(code: &str) -> String {
    let mut tidied = String::with_capacity(code.len());
    let mut comment = String::new();
    for line in code.lines() {
        let text = line.trim_start().strip_prefix("///");
        match (text, text.and_then(|text| text.strip_prefix(OWN))) {
            (_, Some(own)) => {
                tidied.push_str(&rewritten(&mem::take(&mut comment)));
                tidied.push_str("///");
                tidied.push_str(own.trim_end());
                tidied.push('\n');
            }
            (Some(text), None) => {
                comment.push_str(&marked(text));
                comment.push('\n');
            }
            (None, None) => {
                tidied.push_str(&rewritten(&mem::take(&mut comment)));
                tidied.push_str(line);
                tidied.push('\n');
            }
        }
    }
    tidied + &rewritten(&comment)
}

/// A comment as `///` lines.
fn rewritten(comment: &str) -> String {
    let mut writer = Writer { comment, ..Writer::default() };
    for (event, range) in Parser::new(comment).into_offset_iter() {
        writer.event(event, range);
    }
    if writer.out.is_empty() && !comment.trim().is_empty() {
        // Signs of headings or quotes alone.
        writer.code(comment);
    }
    writer.out
}

/// Writes what the parser finds.
#[derive(Debug, Default)]
struct Writer<'a> {
    comment: &'a str,
    out: String,
    /// The items and quotes that the next line is in.
    within: Vec<Container>,
    /// Whether an empty line comes before the next block.
    is_apart: bool,
    /// Whether it does unless that is the next item, which it would make a loose one.
    is_after_list: bool,
    /// The paragraph or heading so far, and where in the comment that ends.
    text: Option<(String, usize)>,
    /// The code block so far.
    block: Option<String>,
}

/// What each line of an item or a quote starts with.
#[derive(Debug)]
struct Container {
    /// The marker of an item, until it is written.
    marker: Option<String>,
    start: String,
}

impl Writer<'_> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Text(content) if self.block.is_some() => {
                self.block.get_or_insert_default().push_str(&content);
            }
            Event::Code(_) => {
                self.text(range.start..range.start);
                let code = in_code(&self.unwrapped(range.clone()).replace('\n', " "));
                // On one line, where nothing in it starts a block.
                self.text = self.text.take().map(|(text, _)| (text + &code, range.end));
            }
            Event::End(TagEnd::Heading(level)) => {
                if let Some((text, _)) = self.text.take() {
                    let signs = "#".repeat(level as usize);
                    self.write(&format!("{signs} {}", in_prose(&text.replace('\n', " "))));
                    self.is_apart = true;
                }
            }
            Event::Start(tag) if !is_inline(&tag.to_end()) => {
                self.end_text();
                self.start(&tag, range);
            }
            Event::End(tag) if !is_inline(&tag) => {
                self.end_text();
                self.end(tag);
            }
            Event::Rule => {
                self.end_text();
                self.write("___");
                self.is_apart = true;
            }
            // What a text starts with, too, after a backslash alone.
            Event::SoftBreak | Event::HardBreak => self.text(range.start..range.start),
            _ => self.text(range),
        }
    }

    fn start(&mut self, tag: &Tag<'_>, range: Range<usize>) {
        match tag {
            Tag::CodeBlock(_) => self.block = Some(String::new()),
            Tag::BlockQuote(_) => {
                self.separate();
                self.within.push(Container { marker: None, start: "> ".to_owned() });
            }
            // In the middle of a paragraph, no list starts with another number.
            Tag::List(first) => {
                self.is_apart |= self.is_after_list || first.is_some_and(|first| first != 1);
            }
            Tag::Item => {
                self.is_after_list = false;
                self.separate();
                let item = self.comment[range].trim_start();
                let digits = item.bytes().take_while(u8::is_ascii_digit).count();
                let marker = format!("{} ", &item[..=digits]);
                let start = " ".repeat(marker.len());
                self.within.push(Container { marker: Some(marker), start });
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::CodeBlock => {
                let content = self.block.take().unwrap_or_default();
                self.code(&content);
            }
            TagEnd::Item => {
                let is_first = |item: &Container| item.marker.is_some();
                match self.within.as_slice() {
                    // Markers alone are a rule.
                    [.., outer, item] if is_first(outer) && is_first(item) => {}
                    [.., item] if is_first(item) => self.write(""),
                    _ => {}
                }
                self.within.pop();
            }
            TagEnd::BlockQuote(_) => {
                self.within.pop();
                self.is_apart = true;
            }
            TagEnd::List(_) => self.is_after_list = true,
            _ => self.is_apart = true,
        }
    }

    /// Adds a part of a paragraph, and what is between it and the part before.
    fn text(&mut self, range: Range<usize>) {
        // The parser leaves out the backslash before a sign.
        let is_escaped = self.comment[..range.start].ends_with('\\');
        let start = range.start - usize::from(is_escaped);
        let (text, end) = self.text.take().unwrap_or((String::new(), start));
        let more = self.unwrapped(end..range.end.max(end));
        self.text = Some((text + &more, range.end.max(end)));
    }

    /// A part of the comment without what its lines start with as part of an item or a quote.
    fn unwrapped(&self, range: Range<usize>) -> String {
        let quotes = self.within.iter().filter(|container| container.start == "> ").count();
        let unwrapped = |line: &str| {
            (0..quotes)
                .fold(line.trim_start(), |line, _| {
                    line.strip_prefix('>').unwrap_or(line).trim_start()
                })
                .to_owned()
        };
        let mut lines = self.comment[range].split('\n');
        let first = lines.next().unwrap_or_default().to_owned();
        lines.fold(first, |text, line| text + "\n" + &unwrapped(line))
    }

    fn end_text(&mut self) {
        let Some((text, _)) = self.text.take() else {
            return;
        };
        for (index, line) in in_prose(&text).lines().enumerate() {
            match index {
                0 => self.write(line),
                _ => self.write(&continuation(line)),
            }
        }
    }

    fn code(&mut self, content: &str) {
        let content = in_code(content);
        let ticks = content.split(|sign| sign != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(3.max(ticks + 1));
        self.write(&format!("{fence}text"));
        let lines = content.lines().filter(|line| !line.trim().is_empty());
        let indent = lines.map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
        content.lines().for_each(|line| self.write(line.get(indent..).unwrap_or_default()));
        self.write(&fence);
        self.is_apart = true;
    }

    /// Sets the next block apart.
    fn separate(&mut self) {
        let is_apart = mem::take(&mut self.is_apart) | mem::take(&mut self.is_after_list);
        let is_first = match self.within.last() {
            Some(container) => container.marker.is_some(),
            None => self.out.is_empty(),
        };
        if is_apart && !is_first {
            self.write("");
        }
    }

    fn write(&mut self, text: &str) {
        self.separate();
        let mut line = "/// ".to_owned();
        for container in &mut self.within {
            line += container.marker.take().as_ref().unwrap_or(&container.start);
        }
        line += text;
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }
}

fn is_inline(tag: &TagEnd) -> bool {
    matches!(tag, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Image)
}

/// A line of a paragraph after its first, which starts no block where it stands now.
fn continuation(line: &str) -> String {
    if let Some(Event::End(TagEnd::Paragraph)) = Parser::new(&format!("x\n{line}")).last() {
        return line.to_owned();
    }
    let at = line.find(|sign: char| sign.is_ascii_punctuation()).unwrap_or(0);
    let (number, rest) = line.split_at(at);
    let sign = rest.chars().next().unwrap_or_default();
    let after = rest.trim_start_matches(sign);
    // All of a run, the rest of which could begin code or be emphasis.
    let run = format!("\\{sign}").repeat(rest.len() - after.len());
    format!("{number}{run}{after}")
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
        becomes(&[" *a* __b__ \\*c ~~d~~", " `e` f\\"], &[" *a* __b__ \\*c ~~d~~", " `e` f\\"]);
        becomes(&[" |a|b|", " |-|-|", " |c|d|"], &[" |a|b|", " |-|-|", " |c|d|"]);
        becomes(&[" # One #", " Two", " three", " ---"], &[" # One", "", " ## Two three"]);
    }

    #[test]
    fn code_is_not_compiled_as_an_example() {
        becomes(
            &[" Such as:", "", "     {\"a\":", "       1}", " and so on."],
            &[" Such as:", "", " ```text", " {\"a\":", "   1}", " ```", "", " and so on."],
        );
        for fence in ["```", "```rust", "``` no_run", "```json,ignore", "~~~", "~~~ {.x}"] {
            becomes(&[&format!(" {fence}"), " x"], &[" ```text", " x", " ```"]);
        }
        becomes(&[" ````", " ```", "   x", " ````"], &[" ````text", " ```", "   x", " ````"]);
        becomes(&[" ~~~", " ```", " ~~~ x", " ~~~"], &[" ````text", " ```", " ~~~ x", " ````"]);
        becomes(&[" ```a``` b"], &[" ```a``` b"]);
        becomes(&[" -     foo {", " - bar"], &[" - ```text", "   foo {", "   ```", "", " - bar"]);
        becomes(&[" >     code", " > a"], &[" > ```text", " > code", " > ```", " >", " > a"]);
        becomes(&[" - a", "", "       code {"], &[" - a", "", "   ```text", "   code {", "   ```"]);
    }

    #[test]
    fn a_line_within_a_paragraph_is_part_of_it_however_far_it_is_indented() {
        becomes(&[" One,", "      two."], &[" One,", " two."]);
        for (given, expected) in [
            ("# a", "\\# a"),
            ("> a", "\\> a"),
            ("- a", "\\- a"),
            ("1. a", "1\\. a"),
            ("==", "\\=\\="),
            ("~~~", "\\~\\~\\~"),
            ("``` a", "\\`\\`\\` a"),
        ] {
            becomes(&[" One", &format!("      {given}")], &[" One", &format!(" {expected}")]);
        }
        becomes(&[" \\", "     ``` no_run"], &[" \\", " \\`\\`\\` no_run"]);
        becomes(&[" One `a", "      ``` - b` c"], &[" One `a ``` - b` c"]);
    }

    #[test]
    fn lists_and_quotes_are_aligned_as_clippy_wants_them() {
        becomes(&[" > quoted", " lazily"], &[" > quoted", " > lazily"]);
        becomes(&[" > - a", " > b", " c", "", " d"], &[" > - a", " >   b", " >   c", "", " d"]);
        becomes(
            &[" - a", "", "   b", " c", " -", " * d"],
            &[" - a", "", "   b", "   c", "", " -", "", " * d"],
        );
        becomes(&[" -", "   -", "     - a", " + ***"], &[" - - - a", "", " + ___"]);
        becomes(&[" - ", "   -", "     -"], &[" -"]);
        becomes(
            &[" One:", " - one", " goes on", "      and on", "   - inner", " - other", " End."],
            &[
                " One:",
                "",
                " - one",
                "   goes on",
                "   and on",
                "   - inner",
                " - other",
                "   End.",
            ],
        );
        becomes(
            &[" 12. a", " b", "", "     c", "       - d", "       e", "", "     f", " 13) g"],
            &[
                " 12. a", "     b", "", "     c", "", "     - d", "       e", "", "     f", "",
                " 13) g",
            ],
        );
    }

    #[test]
    fn signs_that_rustdoc_would_take_for_links_or_tags_stand_for_themselves() {
        for (given, expected) in [
            ("a [field], \\[done\\] and [a][b]", "a \\[field], \\[done\\] and \\[a]\\[b]"),
            ("\\[a\\]: b", "\\[a\\]: b"),
            ("List<Item> <!-- \\<a>", "List\\<Item> \\<!-- \\<a>"),
            ("[x](<https://x.y>) [x](y) <http://x.y>", "[x](<https://x.y>) \\[x](y) <http://x.y>"),
            ("<http://x.y/\\[z\\]> (<http://x.y>)", "<http://x.y/[z]> (<http://x.y>)"),
            ("<http://x.y/<z>/[a]>", "http\\://x.y/\\<z>/\\[a]"),
            ("`a \\[0\\] <b>` ``c ` [d]``", "`a [0] <b>` ``c ` [d]``"),
            ("`curl <http://x.y/<z>`> a", "`curl http://x.y/<z>` a"),
            ("`never <ended>", "`never \\<ended>"),
            ("12.", "12."),
            ("ends with \\", "ends with \\"),
        ] {
            becomes(&[&format!(" {given}")], &[&format!(" {expected}")]);
        }
        becomes(
            &[" ```", " \\[0\\] <b> <http://x.y>", " ```"],
            &[" ```text", " [0] <b> http://x.y", " ```"],
        );
    }

    #[test]
    fn tabs_carriage_returns_and_turns_of_direction_do_not_reach_rust() {
        becomes(&[" a\tb\r c\u{202e}d\u{1}"], &[" a    b  cd"]);
    }

    #[test]
    fn an_empty_comment_is_none_and_one_of_signs_alone_is_code() {
        becomes(&["", " "], &[]);
        becomes(&[" #"], &[" ```text", " #", " ```"]);
        becomes(&[" >"], &[" ```text", " >", " ```"]);
    }

    #[test]
    fn our_own_lines_are_left_as_they_are_whatever_comes_before() {
        let own = format!("/// ```\n/// open\n///{OWN}\n///{OWN} See [`Own`].\n");
        assert_eq!(tidy(&own), "/// ```text\n/// open\n/// ```\n///\n/// See [`Own`].\n");
    }

    #[test]
    fn code_between_comments_is_left_alone() {
        assert_eq!(tidy("/// A.\nstruct A;\n"), "/// A.\nstruct A;\n");
    }
}
