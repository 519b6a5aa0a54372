//! go-micro's record: the JSON that its registries keep, read leniently and written to the byte.

mod decode;
mod encode;

#[cfg_attr(
    not(feature = "etcd"),
    allow(unused_imports, reason = "etcd:// alone keeps it so far")
)]
pub(super) use self::{decode::decode, encode::encode};

/// The longest record that is read or written, in bytes: etcd itself takes no request over
/// 1.5 MiB. Real records take a few KiB.
const MAX_LEN: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
