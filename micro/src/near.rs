//! The names that a text of an error lists: those nearest to the one asked for, and not all.

use std::collections::BTreeSet;

/// How many names a text lists; it counts the others.
const LISTED: usize = 5;

/// How many names are compared: enough for any fleet, and some milliseconds.
const COMPARED: usize = 4096;

/// The most characters of a name that are compared and shown. A peer may have sent it.
const LONGEST: usize = 100;

/// `'greeter', 'grapher' and 7 more`, those nearest to `asked` first. `None` for no name at all.
pub(crate) fn list<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let asked = clip(asked).to_lowercase();
    let names: BTreeSet<_> = names.into_iter().collect();
    let total = names.len();
    let distance = |name| strsim::osa_distance(&asked, &clip(name).to_lowercase());
    let mut names: Vec<_> =
        names.into_iter().take(COMPARED).map(|name| (distance(name), name)).collect();
    names.sort_unstable();
    names.truncate(LISTED);
    let more = total - names.len();
    let mut names: Vec<_> = names.iter().map(|(_, name)| format!("'{}'", clip(name))).collect();
    let last = if more > 0 { format!("{more} more") } else { names.pop()? };
    Some(if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) })
}

/// `'greeter'`: the name that was most likely meant, if one is so near that it may be a slip: no more
/// than a third of its characters are others.
pub(crate) fn meant<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let asked = clip(asked).to_lowercase();
    let most = (asked.chars().count() / 3).max(1);
    let names = names.into_iter().take(COMPARED).map(clip);
    let distance = |name: &str| strsim::osa_distance(&asked, &name.to_lowercase());
    let near = names.map(|name| (distance(name), name)).filter(|(distance, _)| *distance <= most);
    near.min().map(|(_, name)| format!("'{name}'"))
}

/// The beginning of a name, as much of it as a text has room for.
pub(crate) fn clip(name: &str) -> &str {
    name.char_indices().nth(LONGEST).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["users", "greeter", "orders", "Gretel"];
        let text = list("greetr", names).expect("names");
        assert_eq!(text, "'greeter', 'Gretel', 'orders' and 'users'");
        assert_eq!(list("a", ["b"]).as_deref(), Some("'b'"));
        assert_eq!(list("a", []), None);
    }

    #[test]
    fn only_what_may_be_a_slip_is_taken_for_meant() {
        let names = ["users", "greeter", "orders", "Gretel"];
        for (asked, name) in [
            ("greetr", Some("'greeter'")),
            ("Greeter", Some("'greeter'")),
            ("gretel", Some("'Gretel'")),
            ("usres", Some("'users'")),
            ("billing", None),
            ("a", None),
        ] {
            assert_eq!(meant(asked, names).as_deref(), name, "{asked}");
        }
        assert_eq!(meant("a", []), None);
    }

    #[test]
    fn many_and_long_names_make_no_long_text() {
        let names: Vec<_> = (0..100_000).map(|n| format!("{n:06}{}", "é".repeat(1000))).collect();
        let asked = "x".repeat(100_000);
        let text = list(&asked, names.iter().map(String::as_str)).expect("names");
        assert!(text.ends_with(" and 99995 more") && text.chars().count() < 600, "{text}");
    }
}
