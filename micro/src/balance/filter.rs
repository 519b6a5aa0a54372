//! Which of the nodes that are registered are a channel's at all.

use std::{collections::HashSet, fmt, sync::Arc};

use semver::{Version, VersionReq};

use crate::{Error, discovery::Update, registry::Node};

/// The nodes that a channel is for, by what their records say.
///
/// ```
/// use micro::{ChannelOptions, Client, balance::Filter};
///
/// # fn main() -> Result<(), micro::Error> {
/// let stable = Filter::new().version_range("^1.2").label("track", "stable");
/// let client = Client::builder()
/// #   .without_env()
///     .registry("memory://filter-docs")
///     .for_service("greeter", ChannelOptions::new().filter(stable))
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// A node has to pass all that is said. One that does not is not connected to, and when its record
/// changes so that it does, it is. One whose record no longer does is given up at once, also when it
/// is the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a filter does nothing until ChannelOptions::filter has it"]
pub struct Filter {
    version: Option<String>,
    range: Option<Range>,
    labels: Vec<(String, String)>,
    pub(super) serving: bool,
}

/// A range as it was written, and read where it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    text: String,
    read: Result<VersionReq, String>,
}

impl Filter {
    /// Every node.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nodes of exactly this version, whatever it looks like.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Nodes whose version is in a range, as Cargo writes them: `^1.2`, `>=1.2, <1.4`, `1.*`. A node
    /// whose version is no semantic one, as `latest`, is in none; a `v` before it is passed over.
    ///
    /// A range that cannot be read is an error of `ClientBuilder::build`.
    pub fn version_range(mut self, range: &str) -> Self {
        let read = VersionReq::parse(range).map_err(|error| error.to_string());
        self.range = Some(Range { text: range.to_owned(), read });
        self
    }

    /// Nodes whose metadata has this value. Said several times, each has to hold.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// For each call, nodes whose record lists its method: while a fleet is being rolled out, a method
    /// that only its new nodes have is called there. A record without any methods passes.
    ///
    /// All nodes are connected to, and a pinned call goes where it is pinned to. With a
    /// [subset](crate::ChannelOptions::subset) it takes a node in that, which is chosen without a look at
    /// methods.
    pub fn serving(mut self) -> Self {
        self.serving = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.range {
            Some(Range { text, read: Err(why) }) => Err(Error::config(format!(
                "the version range '{}' of a filter cannot be read: {why}; write one such as '^1.2' \
                 or '>=1.2, <1.4'",
                text.escape_debug()
            ))),
            _ => Ok(()),
        }
    }

    fn admits(&self, node: &Node) -> bool {
        let is_in = |range: &Range| {
            let version = Version::parse(node.version.trim_start_matches('v')).ok();
            let range = range.read.as_ref().ok();
            version.zip(range).is_some_and(|(version, range)| range.matches(&version))
        };
        self.version.as_ref().is_none_or(|version| node.version == *version)
            && self.range.as_ref().is_none_or(is_in)
            && self.labels.iter().all(|(key, value)| node.metadata.get(key) == Some(value))
    }
}

impl fmt::Display for Filter {
    /// What a node's record has to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.iter().map(|version| format!("version {version}"));
        let range = self.range.iter().map(|range| format!("version {}", range.text));
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        f.write_str(&version.chain(range).chain(labels).collect::<Vec<_>>().join(", "))
    }
}

/// A filter over a service's updates.
#[derive(Debug)]
pub(super) struct Filtered {
    filter: Filter,
    left_out: HashSet<Arc<str>>,
    excluded: Vec<Arc<str>>,
}

impl Filtered {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, left_out: HashSet::new(), excluded: Vec::new() }
    }

    /// How many of the nodes that the registry has do not pass.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Those that have come to be left out since the last time.
    pub(super) fn excluded(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.excluded)
    }

    /// The update as it is for those that pass.
    pub(super) fn update(&mut self, update: Update) -> Update {
        match update {
            Update::Reset(mut nodes) => {
                self.left_out.clear();
                nodes.retain(|node| self.passes(node));
                Update::Reset(nodes)
            }
            Update::Insert(node) if self.passes(&node) => Update::Insert(node),
            Update::Insert(node) => Update::Remove(node.id.as_str().into()),
            Update::Remove(id) => {
                self.left_out.remove(&id);
                Update::Remove(id)
            }
            Update::Forget => {
                self.left_out.clear();
                Update::Forget
            }
        }
    }

    fn passes(&mut self, node: &Node) -> bool {
        let passes = self.filter.admits(node);
        if passes {
            self.left_out.remove(node.id.as_str());
        } else {
            let id: Arc<str> = node.id.as_str().into();
            if self.left_out.insert(id.clone()) {
                self.excluded.push(id);
            }
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, version: &str, labels: &[(&str, &str)]) -> Arc<Node> {
        let mut node = Node::new("greeter", id, "host:1");
        version.clone_into(&mut node.version);
        for (key, value) in labels {
            node.metadata.insert((*key).to_owned(), (*value).to_owned());
        }
        Arc::new(node)
    }

    #[test]
    fn a_node_has_to_pass_all_that_is_said() {
        let stable = [("track", "stable"), ("zone", "a")];
        let version = || Filter::new().version("1.2.0");
        let range = |range| Filter::new().version_range(range);
        let label = |value| Filter::new().label("track", value);
        for (filter, version, expected) in [
            (Filter::new(), "latest", true),
            (version(), "1.2.0", true),
            (version(), "1.2.1", false),
            (version(), "v1.2.0", false),
            (Filter::new().version("latest"), "latest", true),
            (range("^1.2"), "1.2.0", true),
            (range("^1.2"), "v1.9.7", true),
            (range("^1.2"), "2.0.0", false),
            (range("^1.2"), "latest", false),
            (range(">=1.2, <1.4"), "1.3.9", true),
            (range(">=1.2, <1.4"), "1.4.0", false),
            (label("stable"), "1.0.0", true),
            (label("canary"), "1.0.0", false),
            (label("stable").label("zone", "a"), "1.0.0", true),
            (label("stable").label("zone", "b"), "1.0.0", false),
            (label("stable").label("rack", "7"), "1.0.0", false),
            (label("stable").version_range("1.*"), "1.7.0", true),
            (label("stable").version_range("1.*"), "2.0.0", false),
        ] {
            let passes = filter.admits(&node("a", version, &stable));
            assert_eq!(passes, expected, "{version} by '{filter}'");
        }
    }

    #[test]
    fn a_range_that_cannot_be_read_is_told() {
        assert!(Filter::new().version_range("^1.2").check().is_ok());
        let error = Filter::new().version_range("1.x.y").check().expect_err("no range");
        let text = error.to_string();
        assert!(
            text.starts_with("the version range '1.x.y' of a filter cannot be read: "),
            "{text}"
        );
        assert!(text.ends_with("; write one such as '^1.2' or '>=1.2, <1.4'"), "{text}");
    }

    #[test]
    fn a_record_that_changes_brings_a_node_in_or_takes_it_out() {
        let mut filtered = Filtered::new(Filter::new().version("1.0.0"));
        let (one, two) = (node("a", "1.0.0", &[]), node("a", "2.0.0", &[]));
        let other = node("b", "2.0.0", &[]);
        let update = filtered.update(Update::Reset(vec![one.clone(), other]));
        assert_eq!((update, filtered.left_out()), (Update::Reset(vec![one.clone()]), 1));
        let update = filtered.update(Update::Insert(two));
        assert_eq!((update, filtered.left_out()), (Update::Remove("a".into()), 2));
        let update = filtered.update(Update::Insert(one.clone()));
        assert_eq!((update, filtered.left_out()), (Update::Insert(one), 1));
        let update = filtered.update(Update::Remove("b".into()));
        assert_eq!((update, filtered.left_out()), (Update::Remove("b".into()), 0));
        filtered.update(Update::Insert(node("c", "2.0.0", &[])));
        let update = filtered.update(Update::Forget);
        assert_eq!((update, filtered.left_out()), (Update::Forget, 0));
    }
}
