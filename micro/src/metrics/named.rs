//! The methods of mounted services.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;

/// How many methods of one service are told apart. A service that answers whatever it is called by, as a
/// proxy does, would else have its callers make up series without end.
const MOST: usize = 64;

/// The paths at which mounted services have answered: all that is known of what methods they have.
#[derive(Debug, Default)]
pub(super) struct Named(ArcSwap<HashSet<Arc<str>>>);

impl Named {
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.load().contains(path)
    }

    /// Adds a path; false if its service has too many.
    pub(super) fn name(&self, path: &str) -> bool {
        let (service, path) = (service(path), Arc::<str>::from(path));
        self.0.rcu(|paths| {
            let is_full = || paths.iter().filter(|it| self::service(it) == service).count() >= MOST;
            if paths.contains(&path) || is_full() {
                return paths.clone();
            }
            let mut paths = HashSet::clone(paths);
            paths.insert(path.clone());
            Arc::new(paths)
        });
        self.has(&path)
    }
}

/// That of `/package.Service/Method`.
fn service(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_methods_and_so_many_at_most() {
        let named = Named::default();
        for number in 0..2 * MOST {
            let path = format!("/proxy/{number}");
            assert!(!named.has(&path));
            assert_eq!(named.name(&path), number < MOST, "{number}");
            assert_eq!(named.has(&path), number < MOST, "{number}");
        }
        assert!(named.name("/proxy/0"), "it is there already");
        assert!(named.name("/other.Service/0"), "another service has room of its own");
    }
}
