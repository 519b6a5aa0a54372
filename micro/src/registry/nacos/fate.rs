//! What became of a record, by what stands in Nacos now.

use nacos_sdk::api::naming::ServiceInstance;

use super::{
    super::{
        Node,
        format::{Format, shorten},
    },
    found::{self, place},
    record::{ID, LEASE, Record},
};

/// What became of a record.
#[derive(Debug)]
pub(super) enum Fate {
    Stands,
    /// Also if an earlier one stands there again, which the SDK writes when it has connected anew.
    Gone,
    /// Another's stands in its place: the node, if it is one.
    Taken(Result<Node, String>),
}

impl Record {
    /// What the instances that Nacos has now say of it. An operator may have changed its metadata, given
    /// it another weight or taken it out: it stands as long as its lease is there, and without one, in
    /// others' formats, all that was written.
    pub(super) fn fate(
        &self,
        node: &Node,
        instances: &[ServiceInstance],
        formats: &[Format],
    ) -> Fate {
        let read = |instance: &ServiceInstance| {
            let read = found::node(&node.service, &self.service, instance, formats);
            read.map(|found| found.node).map_err(shorten)
        };
        let lease_of = |it: &ServiceInstance| it.metadata.get(LEASE)?.parse::<i64>().ok();
        let own = lease_of(&self.instance);
        let later = |it: &&ServiceInstance| {
            own.is_some() && lease_of(it) > own && it.metadata.get(ID) == Some(&node.id)
        };
        let later = instances.iter().filter(later);
        if let Some(later) = later.max_by_key(|it| (lease_of(it), place(it))) {
            return Fate::Taken(read(later));
        }
        let says = |it: &ServiceInstance, (key, value): (&String, &String)| {
            it.metadata.get(key) == Some(value)
        };
        let has = |it: &ServiceInstance| match self.instance.metadata.get_key_value(LEASE) {
            Some(lease) => says(it, lease),
            None => self.instance.metadata.iter().all(|fact| says(it, fact)),
        };
        // In two clusters there may be two: another's beside it takes nothing.
        let here = || instances.iter().filter(|instance| self.is_at(instance));
        let is_earlier = |it: &ServiceInstance| {
            lease_of(it).is_some_and(|its| Some(its) < own) && it.metadata.get(ID) == Some(&node.id)
        };
        match here().max_by_key(|instance| place(instance)) {
            None => Fate::Gone,
            Some(_) if here().any(has) => Fate::Stands,
            Some(instance) if is_earlier(instance) => Fate::Gone,
            Some(instance) => Fate::Taken(read(instance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::Lease,
            found::{MAX_IP, tests::instance},
            record::records,
        },
        *,
    };

    const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

    fn written(node: &Node, cluster: Option<&str>) -> Record {
        records(node, &[Format::Micro], cluster, Lease(7)).unwrap().remove(0)
    }

    #[test]
    fn what_became_of_a_record_is_told_by_what_was_written() {
        let node = Node::new("a", "x", "10.0.3.7:9000");
        let record = written(&node, None);
        let fate = |instances: &[ServiceInstance]| record.fate(&node, instances, &ALL);
        assert!(matches!(fate(&[]), Fate::Gone));
        let mut stands = record.instance.clone();
        stands.enabled = false;
        stands.weight = 50.0;
        stands.metadata.insert("protocol".to_owned(), "from the console".to_owned());
        assert!(matches!(fate(&[stands.clone()]), Fate::Stands));
        let other = ServiceInstance { port: 1, ..stands.clone() };
        assert!(matches!(fate(std::slice::from_ref(&other)), Fate::Gone), "another's port");
        let mut earlier = stands.clone();
        earlier.metadata.insert(LEASE.to_owned(), "6".to_owned());
        assert!(matches!(fate(&[earlier]), Fate::Gone), "it was before");
        let later = |mut other: ServiceInstance| {
            other.metadata.insert(LEASE.to_owned(), "8".to_owned());
            other
        };
        let Fate::Taken(Ok(by)) = fate(&[stands.clone(), later(other)]) else { panic!("taken") };
        assert_eq!(by.address, "10.0.3.7:1");
        let Fate::Taken(Ok(_)) = fate(&[later(stands)]) else { panic!("taken") };
        let Fate::Taken(Ok(by)) = fate(&[instance(&[("protocol", "grpc")])]) else {
            panic!("overwritten")
        };
        assert_eq!(by.id, "10.0.3.7:9000");
        let later = instance(&[("protocol", "grpc"), (ID, "x"), (LEASE, "8")]);
        let broken = ServiceInstance { ip: "\u{1}".repeat(MAX_IP), port: 70_000, ..later };
        let Fate::Taken(Err(why)) = fate(&[broken]) else { panic!("overwritten") };
        assert!(why.starts_with("its address is") && why.len() < 300, "{why}");
    }

    #[test]
    fn another_clusters_at_the_same_address_takes_nothing() {
        let of = |cluster: &str, zone: &str| ServiceInstance {
            cluster_name: Some(cluster.to_owned()),
            ..instance(&[("protocol", "grpc"), ("zone", zone)])
        };
        let (one, two) = (of("c1", "a"), of("c2", "b"));
        let node = Node::new("a", "x", "10.0.3.7:9000");
        let record = written(&node, Some("c1"));
        let mine = record.instance.clone();
        for instances in [[mine.clone(), two.clone()], [two.clone(), mine]] {
            let fate = record.fate(&node, &instances, &ALL);
            assert!(matches!(fate, Fate::Stands), "{fate:?}");
        }
        for instances in [[one.clone(), two.clone()], [two, one]] {
            let Fate::Taken(Ok(by)) = record.fate(&node, &instances, &ALL) else { panic!("taken") };
            assert_eq!(by.metadata["zone"], "b", "always by the same");
        }
    }
}
