//! Signs of a comment that stand for themselves, in prose and in code.

/// Signs that turn the direction of text, which rustc denies in comments.
const DIRECTIONS: [char; 9] = [
    '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}',
];

/// A sign that is written in one way in prose and in another in code, between which only the
/// parser tells; until then a control character stands for it, which comments are rid of.
struct Sign {
    mark: char,
    prose: &'static str,
    code: &'static str,
}

const LESS: Sign = Sign { mark: '\u{1}', prose: "\\<", code: "<" };
const BRACKET: Sign = Sign { mark: '\u{2}', prose: "\\[", code: "[" };
const BRACKET_END: Sign = Sign { mark: '\u{3}', prose: "\\]", code: "]" };
/// Around a URL that becomes a link.
const URL: Sign = Sign { mark: '\u{4}', prose: "<", code: "" };
const URL_END: Sign = Sign { mark: '\u{5}', prose: ">", code: "" };
/// In a URL that becomes none.
const COLON: Sign = Sign { mark: '\u{6}', prose: "\\:", code: ":" };
const SIGNS: [Sign; 6] = [LESS, BRACKET, BRACKET_END, URL, URL_END, COLON];

/// A line as `prost` wrote it, with marks for signs.
pub(super) fn marked(line: &str) -> String {
    // One space belongs to the comment sign.
    let line = line.strip_prefix(' ').unwrap_or(line).trim_end().replace('\t', "    ");
    let line = line.replace(char::is_control, " ").replace(DIRECTIONS, "");
    let mut out = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some(at) = rest.find(['\\', '<', '[']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(url) = url(rest) {
            rest = &rest[1 + url.len() + 1..];
            out.push_str(&marked_url(url));
            continue;
        }
        let (sign, length) = match (rest.as_bytes()[0], rest[1..].chars().next()) {
            (b'\\', Some('[')) => (BRACKET.mark, 2),
            (b'\\', Some(']')) => (BRACKET_END.mark, 2),
            // No more than that sign.
            (b'\\', Some(sign)) => {
                out.push('\\');
                (sign, 1 + sign.len_utf8())
            }
            (b'<', _) => (LESS.mark, 1),
            (b'[', _) if !is_link(rest) => (BRACKET.mark, 1),
            (sign, _) => (sign.into(), 1),
        };
        out.push(sign);
        rest = &rest[length..];
    }
    out + rest
}

/// The URL that a text starts with, around which `prost` put `<>`.
fn url(text: &str) -> Option<&str> {
    let text = text.strip_prefix('<')?;
    let end = text.find(|sign: char| sign == ')' || sign.is_whitespace()).unwrap_or(text.len());
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    text[..end].strip_suffix('>').filter(|_| is_url)
}

/// A URL as a link, or as text if it has signs that a link must not have.
fn marked_url(url: &str) -> String {
    let url = url.replace("\\[", "[").replace("\\]", "]");
    if url.contains(['<', '>', '`']) {
        return url
            .replace("://", &format!("{}//", COLON.mark))
            .replace('<', &LESS.mark.to_string())
            .replace('[', &BRACKET.mark.to_string());
    }
    format!("{}{url}{}", URL.mark, URL_END.mark)
}

/// Whether a text starts with `[text](url)`.
fn is_link(text: &str) -> bool {
    let Some((text, rest)) = text[1..].split_once("](") else {
        return false;
    };
    let end = url(rest).and_then(|url| rest.strip_prefix(&format!("<{url}>")));
    !text.contains(['[', ']']) && end.is_some_and(|end| end.starts_with(')'))
}

pub(super) fn in_prose(marked: &str) -> String {
    SIGNS.iter().fold(marked.to_owned(), |text, sign| text.replace(sign.mark, sign.prose))
}

pub(super) fn in_code(marked: &str) -> String {
    SIGNS.iter().fold(marked.to_owned(), |text, sign| text.replace(sign.mark, sign.code))
}
