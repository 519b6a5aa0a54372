//! What an answer was decoded to, kept for the next one. Consul answers a change of one node with all
//! nodes of its service, and all but that one are the same to the byte: most of the time that an answer
//! takes would go into inflating their tags again.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
};

use super::{
    super::{Entry, Listing, Malformed, format::Format},
    service::Healthy,
};

/// The entries of an answer, in its order, which Consul keeps. (With `near` it may not: what is out of
/// order is decoded anew.)
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: VecDeque<Kept>,
    /// Of this process and this watch alone: nobody can make up an entry with the hash of another.
    hasher: RandomState,
}

/// The bytes of an entry would take as much memory again as the node; their hash tells as well whether
/// they are the same.
#[derive(Debug)]
struct Kept {
    length: usize,
    hash: u64,
    /// None for a node that is not to be called.
    read: Option<Result<Entry, Malformed>>,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes an answer in, which is another one for the same service and formats.
    ///
    /// # Errors
    /// What is wrong with it, in words. Nothing is known then.
    pub(super) fn take(
        &mut self,
        answer: &[u8],
        service: &str,
        formats: &[Format],
    ) -> Result<(), String> {
        let entries = std::mem::take(&mut self.entries);
        let mut before = Before { entries, gone: 0, places: None };
        let mut entries = VecDeque::new();
        let no_list = || "no list".to_owned();
        let mut rest = answer.trim_ascii().strip_prefix(b"[").ok_or_else(no_list)?;
        while let Some(item) = next(rest, entries.is_empty()).ok_or_else(no_list)? {
            let kept = match before.next_if_same(item, &self.hasher) {
                Some(kept) => kept,
                None => {
                    let kept = Kept::decode(item, service, formats, &self.hasher)?;
                    before.replace(&kept);
                    kept
                }
            };
            rest = &item[kept.length..];
            entries.push_back(kept);
        }
        self.entries = entries;
        Ok(())
    }

    /// The nodes, as of this revision.
    pub(super) fn listing(&self, revision: u64) -> Listing {
        let mut listing = Listing { revision, ..Listing::default() };
        for read in self.entries.iter().filter_map(|kept| kept.read.as_ref()) {
            match read {
                Ok(entry) => listing.entries.push(entry.clone()),
                Err(malformed) => listing.malformed.push(malformed.clone()),
            }
        }
        listing
    }
}

/// From the next item of a list on, or none at its end; nothing at all if neither is there.
fn next(rest: &[u8], is_first: bool) -> Option<Option<&[u8]>> {
    let rest = rest.trim_ascii_start();
    match rest.split_first()? {
        (b']', []) => Some(None),
        (b',', rest) if !is_first => Some(Some(rest.trim_ascii_start())),
        _ if is_first => Some(Some(rest)),
        _ => None,
    }
}

impl Kept {
    fn decode(
        item: &[u8],
        service: &str,
        formats: &[Format],
        hasher: &RandomState,
    ) -> Result<Self, String> {
        if !item.starts_with(b"{") {
            return Err("a list of something else than objects".to_owned());
        }
        let mut items = serde_json::Deserializer::from_slice(item).into_iter::<Healthy>();
        let healthy = match items.next() {
            Some(healthy) => healthy.map_err(|error| error.to_string())?,
            None => return Err("it ends too early".to_owned()),
        };
        let length = items.byte_offset();
        let hash = hasher.hash_one(&item[..length]);
        Ok(Self { length, hash, read: healthy.read(service, formats) })
    }

    /// Whether this begins with the very same entry. It is an object, and so ends by itself.
    fn begins(&self, item: &[u8], hasher: &RandomState) -> bool {
        let is_over = |next: &u8| matches!(next, b',' | b']') || next.is_ascii_whitespace();
        item.get(self.length).is_some_and(is_over)
            && hasher.hash_one(&item[..self.length]) == self.hash
    }

    fn key(&self) -> Option<&str> {
        Some(match self.read.as_ref()? {
            Ok(entry) => &entry.key,
            Err(malformed) => &malformed.key,
        })
    }
}

/// What is left of the answer before.
struct Before {
    entries: VecDeque<Kept>,
    /// How many are not.
    gone: usize,
    /// Where in that answer each key was, once that is asked: to look for each would take as long as
    /// both answers together are, squared.
    places: Option<HashMap<String, usize>>,
}

impl Before {
    fn next_if_same(&mut self, item: &[u8], hasher: &RandomState) -> Option<Kept> {
        let kept = self.entries.pop_front_if(|kept| kept.begins(item, hasher))?;
        self.gone += 1;
        Some(kept)
    }

    /// Goes on behind the place that this one had: those in front of it have gone.
    fn replace(&mut self, kept: &Kept) {
        let Some(key) = kept.key() else { return };
        let Self { entries, gone, places } = self;
        let places = places.get_or_insert_with(|| {
            let place = |(at, kept): (usize, &Kept)| Some((kept.key()?.to_owned(), *gone + at));
            // Of those with one key the first counts.
            entries.iter().enumerate().rev().filter_map(place).collect()
        });
        if let Some(left) = places.get(key).and_then(|place| (place + 1).checked_sub(*gone)) {
            entries.drain(..left);
            *gone += left;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    /// A node by its number, and how often it has changed; critical if that is 0.
    type One = (u16, u8);

    /// It in the catalog, as compact or spaced as Consul writes it.
    fn entry((id, change): One, is_spaced: bool) -> String {
        let json = serde_json::json!({
            "Node": { "Node": "n1", "Address": "10.0.0.9" },
            "Service": {
                "ID": format!("a-{id}"), "Service": "a", "Port": 1, "ModifyIndex": change,
                "Meta": { "protocol": "grpc", "zone": "[{,\\\"" }
            },
            "Checks": [{
                "CheckID": "serfHealth", "Status": if change == 0 { "critical" } else { "passing" }
            }]
        });
        match is_spaced {
            true => serde_json::to_string_pretty(&json).unwrap(),
            false => json.to_string(),
        }
    }

    fn answer(all: &[One], is_spaced: bool) -> String {
        let entries: Vec<_> = all.iter().map(|one| entry(*one, is_spaced)).collect();
        match is_spaced {
            true => format!("[\n    {}\n]\n", entries.join(",\n    ")),
            false => format!("[{}]", entries.join(",")),
        }
    }

    fn take(known: &mut Known, answer: &str) -> Result<Listing, String> {
        known.take(answer.as_bytes(), "a", &[Format::Micro])?;
        Ok(known.listing(1))
    }

    fn nodes(known: &Known) -> BTreeMap<String, Arc<crate::registry::Node>> {
        known.listing(1).entries.into_iter().map(|entry| (entry.key, entry.node)).collect()
    }

    #[test]
    fn only_what_has_changed_is_decoded_anew() {
        for is_spaced in [false, true] {
            let mut all: Vec<One> = (0..200).map(|id| (id, 1)).collect();
            let mut known = Known::default();
            let mut anew = |all: &[One]| {
                let before = nodes(&known);
                take(&mut known, &answer(all, is_spaced)).unwrap();
                let after = nodes(&known);
                assert_eq!(after.len(), all.iter().filter(|(_, change)| *change > 0).count());
                let is_kept = |(key, node): &(&String, &Arc<_>)| {
                    before.get(*key).is_some_and(|before| Arc::ptr_eq(before, node))
                };
                after.iter().filter(|it| !is_kept(it)).count()
            };
            assert_eq!(anew(&all), 200);
            assert_eq!(anew(&all), 0);
            all[7].1 = 2;
            assert_eq!(anew(&all), 1, "one that changed");
            all.insert(100, (900, 1));
            all.push((901, 1));
            assert_eq!(anew(&all), 2, "two that came");
            all.remove(0);
            assert_eq!(anew(&all), 1, "the one after one that went");
            all.drain(20..120);
            assert_eq!(anew(&all), 1, "the one after many that went");
            all[1..41].iter_mut().for_each(|one| one.1 += 1);
            assert_eq!(anew(&all), 40, "many that changed side by side");
            all[50].1 = 0;
            assert_eq!(anew(&all), 1, "the one after one that is not called any more");
            assert_eq!(anew(&all), 0);
            all[50].1 = 3;
            assert_eq!(anew(&all), 2, "one that is called again, and the one after");
            assert_eq!(anew(&[]), 0);
        }
    }

    #[test]
    fn what_is_no_list_of_objects_says_why_and_leaves_nothing_known() {
        let one = entry((1, 1), false);
        for answer in [
            "",
            "null",
            "{}",
            "[",
            "[,]",
            "[}",
            "[1]",
            "[null]",
            "[[]]",
            &format!("[{one}"),
            &format!("[{one},"),
            &format!("[{one},]"),
            &format!("[,{one}]"),
            &format!("[{one}{one}]"),
            &format!("[{one}]]"),
            &format!("[{one}],"),
            &format!("[{}", &one[..one.len() - 1]),
        ] {
            let mut known = Known::default();
            take(&mut known, &format!("[{one}]")).unwrap();
            let why = take(&mut known, answer).expect_err(answer);
            assert!(!why.is_empty(), "{answer}");
            assert!(known.is_empty(), "{answer}");
            assert_eq!(take(&mut known, &format!("[{one}]")).unwrap().entries.len(), 1, "{answer}");
        }
        assert!(take(&mut Known::default(), " [ ] ").unwrap().entries.is_empty());
    }

    proptest! {
        /// Whatever was known before, an answer says what it would say to one who knows nothing.
        #[test]
        fn what_is_kept_is_what_would_be_decoded(
            answers in proptest::collection::vec(
                proptest::collection::vec((0..12u16, 0..4u8), 0..12), 0..6
            ),
        ) {
            let mut known = Known::default();
            for all in answers {
                let text = answer(&all, false);
                let told = take(&mut known, &text).unwrap();
                let anew = take(&mut Known::default(), &text).unwrap();
                prop_assert_eq!(format!("{:?}", told), format!("{:?}", anew));
            }
        }
    }
}
