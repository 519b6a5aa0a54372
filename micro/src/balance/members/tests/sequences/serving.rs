//! Which of the nodes a call goes to that wants one with its method.

use super::*;
use crate::{
    balance::{Request, ewma::Load, request::Method, snapshot::Endpoint},
    registry,
};

/// The methods that calls ask for.
const METHODS: [&str; 3] = ["Greeter.Hello", "Greeter.Wave", "Greeter.Bow"];

/// Those that a record of this version lists: with none it may have any.
pub(super) fn endpoints(version: u8) -> Vec<registry::Endpoint> {
    let named = |name: &&str| registry::Endpoint { name: (*name).to_owned(), ..Default::default() };
    METHODS[..usize::from(version)].iter().map(named).collect()
}

fn has(node: &Node, method: &str) -> bool {
    node.version == "0.0.0" || node.endpoints.iter().any(|it| it.name == method)
}

impl Run {
    /// A call goes to a node that is ready and has its method as long as there is one, and to no other. As
    /// the driver has it: to one that is ejected, if all that have it are.
    pub(super) fn serves(&mut self) -> Result<(), TestCaseError> {
        let now = self.world.at(self.now);
        let picked = &self.world.picked;
        for gone in self.identities.iter().filter(|id| !picked.contains_key(id)) {
            self.set.remove(*gone);
        }
        for (id, (node, link)) in picked {
            let load = Load::new(None, Duration::from_secs(5), now);
            self.set.insert(Endpoint::of(node.clone(), *id, *link, load));
        }
        let (snapshot, meant) = (self.set.snapshot(), self.meant()?);
        for method in METHODS {
            let path = method.replace("Greeter.", "/greeter.v1.Greeter/");
            let hash = Some(self.rng.u64(..));
            let request = Request { method: &path, hash, ..Request::default() };
            let picked = snapshot.pick(&request, now, &mut self.rng);
            let picked = picked.map(|endpoint| (endpoint.node.clone(), endpoint.connection));
            let members = &self.world.members;
            let is_there = |link: &u32| {
                let key = &self.world.dialled[*link as usize].key;
                has(&members.members[key].node, method)
            };
            let ejected = || {
                let (_, node, link, _) =
                    members.first_ejected(|node| Method::of(&path).is_in(node))?;
                Some((node, link))
            };
            match picked.or_else(ejected) {
                Some((node, link)) => {
                    prop_assert!(has(&node, method), "{method} at {} {}", node.id, node.version);
                    prop_assert!(self.is_ready(link), "{method} at {} by {link}", node.id);
                }
                None => prop_assert!(!meant.iter().any(is_there), "{method} goes nowhere"),
            }
        }
        Ok(())
    }
}
