//! Chapters on using micro, longer than an item's documentation.

#[doc = include_str!("errors.md")]
pub mod errors {}
