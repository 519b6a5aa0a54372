//! Connections against scripted peers: `h2`'s server, and bytes written by hand.

mod calls;
mod connecting;
mod ending;
mod kit;
mod silence;
mod small;
mod streams;
