//! Records as the real peers wrote them into etcd.

const VECTORS: &str = include_str!("../../../../tests/vectors/etcd-records.txt");

/// Key and value of every record that a real peer wrote.
pub(super) fn records() -> Vec<(&'static str, &'static str)> {
    let mut key = "";
    let mut records = Vec::new();
    for line in VECTORS.lines() {
        if let Some(rest) = line.strip_prefix("KEY ") {
            key = rest;
        } else if let Some(rest) = line.strip_prefix("VALUE ") {
            let (length, value) = rest.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(value.len()), "{key}");
            records.push((key, value));
        }
    }
    records
}
