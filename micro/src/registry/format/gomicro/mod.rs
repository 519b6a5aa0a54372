//! go-micro's records: the JSON that its registries keep, and the one that goes into a TXT record;
//! read leniently and written to the byte.

mod decode;
mod encode;
#[cfg(any(test, feature = "nats"))]
mod event;
#[cfg(any(test, feature = "consul", feature = "nacos"))]
pub(in crate::registry) mod tag;

#[cfg(any(test, feature = "nats"))]
pub(in crate::registry) use self::event::{
    Told, Unreadable, decode_event, decode_told, encode_event, encode_get, encode_list,
};
pub(in crate::registry) use self::{decode::decode, encode::encode};
#[cfg_attr(not(feature = "mdns"), allow(unused_imports, reason = "mdns:// alone says it"))]
pub(in crate::registry) use self::{decode::decode_text, encode::encode_text};

#[cfg(test)]
mod tests;
