//! go-micro's records: the JSON that its registries keep, and the one that goes into a TXT record;
//! read leniently and written to the byte.

mod decode;
mod encode;

#[cfg_attr(
    not(any(feature = "etcd", feature = "kubernetes")),
    allow(unused_imports, reason = "others keep no record of go-micro's")
)]
pub(super) use self::{decode::decode, encode::encode};
#[cfg_attr(not(feature = "mdns"), allow(unused_imports, reason = "mdns:// alone says it"))]
pub(super) use self::{decode::decode_text, encode::encode_text};

/// The longest record that is read or written, in bytes: etcd itself takes no request over
/// 1.5 MiB. Real records take a few KiB.
const MAX_LEN: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
