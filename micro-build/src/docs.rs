//! Comments of a `.proto` as documentation in Rust.
//!
//! Comments are written for people, not for rustdoc: what is indented or fenced there would be
//! compiled as a Rust example by the user's `cargo test`, and lists that continue on the next line
//! are findings of clippy's. So code blocks become text, and lists are aligned.

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
    /// Inside a fence that the comment opened.
    in_fence: bool,
    /// Inside a fence that we opened around a block indented this far.
    code: Option<usize>,
    /// How far the text of the list item above is indented.
    list: Option<usize>,
    after_blank: bool,
}

impl Block {
    fn push(&mut self, text: &str) {
        let text = text.replace('\t', "    ").replace('\r', " ");
        // One space belongs to the comment sign.
        let text = text.strip_prefix(' ').unwrap_or(&text).trim_end();
        let after_blank = self.out.is_empty() || self.after_blank;
        self.after_blank = text.is_empty();
        let indent = text.len() - text.trim_start().len();
        if text.trim_start().starts_with("```") {
            self.close_code();
            self.in_fence = !self.in_fence;
            let info = text.trim_start().trim_start_matches('`');
            let opens_rust = self.in_fence && is_rust(info);
            return self.write(if opens_rust { "```text" } else { text.trim_start() });
        }
        if self.in_fence {
            return self.write(text);
        }
        if indent >= 4 && self.list.is_none() && after_blank && self.code.is_none() {
            self.write("```text");
            self.code = Some(indent);
        }
        if let Some(code) = self.code {
            if indent >= 4 {
                return self.write(&text[indent.min(code)..]);
            }
            self.close_code();
        }
        self.prose(text, indent);
    }

    fn prose(&mut self, text: &str, indent: usize) {
        if text.is_empty() {
            self.list = None;
            return self.write("");
        }
        let indent = match (marker(text), self.list) {
            (Some(width), list) => {
                let indent = if list.is_none() { indent.min(3) } else { indent };
                self.list = Some(indent + width);
                indent
            }
            (None, Some(list)) => list,
            (None, None) => indent.min(3),
        };
        self.write(&format!("{}{}", " ".repeat(indent), text.trim_start()));
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

    /// Appends the block, unless there is nothing in it.
    fn end(&mut self, tidied: &mut String) {
        self.close_code();
        if self.in_fence {
            self.write("```");
        }
        if self.out.lines().any(|line| line != "///") {
            tidied.push_str(&self.out);
        }
        *self = Self::default();
    }
}

/// Whether rustdoc would compile a block with this info string.
fn is_rust(info: &str) -> bool {
    let info = info.trim();
    info.is_empty() || info.starts_with("rust")
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
        becomes(&[" One,", "      two."], &[" One,", "    two."]);
    }

    #[test]
    fn a_fence_without_a_language_is_text_and_one_with_a_language_stays() {
        becomes(&[" ```", " x", " ```"], &[" ```text", " x", " ```"]);
        becomes(&[" ```rust", " x", " ```"], &[" ```text", " x", " ```"]);
        becomes(&[" ```json", "  {}", " ```"], &[" ```json", "  {}", " ```"]);
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
                " End.",
            ],
        );
    }

    #[test]
    fn tabs_and_carriage_returns_do_not_reach_rust() {
        becomes(&[" a\tb\r c"], &[" a    b  c"]);
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
