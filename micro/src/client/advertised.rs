//! The service config that a service's own nodes advertise.

use std::{collections::HashMap, sync::Arc};

use super::{
    ServiceConfig,
    live_config::{LiveConfig, Source},
};
use crate::{discovery::Update, metrics, registry::Node};

/// Where a record's metadata has it.
const KEY: &str = "service_config";

/// What the nodes of a service say of how it wants to be called.
///
/// What most of those say that say anything holds; of as many, the text that sorts first, so that all
/// clients agree. While the registry lists no node, what was said last holds.
#[derive(Debug)]
pub(super) struct Advertised {
    service: Arc<str>,
    live: Arc<LiveConfig>,
    /// By the node's id.
    said: HashMap<String, Arc<str>>,
    /// How many nodes say it.
    counts: HashMap<Arc<str>, usize>,
    /// What was last read.
    held: Option<Arc<str>>,
}

impl Advertised {
    pub(super) fn new(service: &str, live: Arc<LiveConfig>) -> Self {
        let service = service.into();
        Self { service, live, said: HashMap::new(), counts: HashMap::new(), held: None }
    }

    pub(super) fn apply(&mut self, update: &Update) {
        self.take(update);
        // It may be set already.
        let _ = self.live.heard().set(());
    }

    fn take(&mut self, update: &Update) {
        let has_node = match update {
            Update::Reset(nodes) => {
                self.said.clear();
                self.counts.clear();
                nodes.iter().for_each(|node| self.insert(node));
                !nodes.is_empty()
            }
            Update::Insert(node) => {
                self.remove(&node.id);
                self.insert(node);
                true
            }
            Update::Remove(id) => {
                self.remove(id);
                false
            }
            // What follows are the nodes that there are, and no word of those that were.
            Update::Forget => {
                self.said.clear();
                self.counts.clear();
                false
            }
        };
        let most = self.counts.iter().max_by(|(a, m), (b, n)| m.cmp(n).then_with(|| b.cmp(a)));
        let most = most.map(|(text, _)| text.clone());
        if most == self.held || most.is_none() && !has_node {
            return;
        }
        match most.as_deref().map(ServiceConfig::read).transpose() {
            Ok(config) => self.live.say(Source::Registry, config),
            Err(fault) => {
                tracing::warn!(
                    service = &*self.service,
                    "still going by the last good service config: that of most nodes' metadata: {fault}"
                );
                metrics::service_config_refused(&self.service, "registry");
            }
        }
        self.held = most;
    }

    fn insert(&mut self, node: &Node) {
        let Some(text) = node.metadata.get(KEY) else {
            return;
        };
        // One text, however many say it.
        let known = self.counts.get_key_value(text.as_str()).map(|(text, _)| text.clone());
        let text = known.unwrap_or_else(|| text.as_str().into());
        *self.counts.entry(text.clone()).or_default() += 1;
        self.said.insert(node.id.clone(), text);
    }

    fn remove(&mut self, id: &str) {
        let Some(text) = self.said.remove(id) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&text) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::fixture::Log;

    fn node(id: usize, timeout: Option<&str>) -> Arc<Node> {
        let mut node = Node::new("a", format!("a-{id}"), "host:1");
        if let Some(timeout) = timeout {
            let json =
                format!(r#"{{"methodConfig": [{{"name": [{{}}], "timeout": "{timeout}"}}]}}"#);
            node.metadata.insert(KEY.to_owned(), json);
        }
        Arc::new(node)
    }

    fn timeout(live: &LiveConfig) -> Option<u64> {
        let live = live.load();
        let timeout = live.as_ref()?.config.method("/a.B/C")?.timeout?;
        Some(timeout.as_secs())
    }

    #[test]
    fn what_most_of_those_nodes_say_that_say_anything_holds() {
        let live = Arc::new(LiveConfig::default());
        let mut nodes = Advertised::new("a", live.clone());
        let mut then = |update: Update, expected: Option<u64>| {
            nodes.apply(&update);
            assert_eq!(timeout(&live), expected, "after {update:?}");
        };
        let insert = |id, timeout| Update::Insert(node(id, timeout));
        let remove = |id: usize| Update::Remove(format!("a-{id}").into());
        then(Update::Reset(vec![node(1, None), node(2, None)]), None);
        then(insert(3, Some("3s")), Some(3));
        then(insert(4, Some("4s")), Some(3)); // sorts first
        then(insert(5, Some("4s")), Some(4));
        then(insert(5, Some("3s")), Some(3)); // written anew
        then(remove(3), Some(3));
        then(remove(5), Some(4));
        then(remove(4), Some(4)); // nobody says otherwise
        then(Update::Reset(Vec::new()), Some(4));
        then(Update::Forget, Some(4));
        then(insert(6, None), None);
        then(insert(1, Some("3s")), Some(3));
        then(insert(2, Some("3s")), Some(3));
        then(Update::Forget, Some(3)); // nobody says otherwise
        then(insert(7, Some("4s")), Some(4)); // what was forgotten has no vote
        then(remove(1), Some(4));
    }

    #[test]
    fn one_that_breaks_a_rule_leaves_the_last_good_one_in_force() {
        let log = Log::down_to(Level::WARN);
        let live = Arc::new(LiveConfig::default());
        let mut nodes = Advertised::new("a", live.clone());
        nodes.apply(&Update::Reset(vec![node(1, Some("3s"))]));
        for id in 2..5 {
            nodes.apply(&Update::Insert(node(id, Some("never"))));
        }
        assert_eq!(timeout(&live), Some(3));
        let lines = log.lines_with("$.methodConfig[0].timeout: \"never\" is no duration");
        assert_eq!(lines.len(), 1, "said once: {lines:?}");
        for id in 2..5 {
            nodes.apply(&Update::Insert(node(id, Some("5s"))));
        }
        assert_eq!(timeout(&live), Some(5));
    }
}
