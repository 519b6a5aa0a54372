//! micro's counters and lines over loom's atomics, and what must hold in whichever order threads come to
//! them, and whichever of the values that the memory model allows they then read.
//!
//! They are micro's own files, which take their atomics from `crate::sync`: in micro those are `std`'s,
//! here they are loom's. So nothing is built anew with a `--cfg`, and no user has loom in their tree. What
//! those files have of others is made up here. The models run as tests of this package: `cargo test
//! --package loom-models`.

// What the models do not call is called in micro.
#![allow(dead_code)]

#[path = "../../../micro/src/client/budget.rs"]
mod budget;
#[path = "../../../micro/src/balance/ewma.rs"]
mod ewma;
#[path = "../../../micro/src/balance/policy/held.rs"]
mod held;
#[path = "../../../micro/src/balance/policy/in_flight.rs"]
mod in_flight;
#[path = "../../../micro/src/balance/lacking.rs"]
mod lacking;
#[path = "../../../micro/src/balance/lines.rs"]
mod lines;
#[path = "../../../micro/src/balance/policy/listed.rs"]
mod listed;
#[path = "../../../micro/src/client/p95.rs"]
mod p95;
#[path = "../../../micro/src/balance/probes.rs"]
mod probes;
#[path = "../../../micro/src/transport/slots.rs"]
mod slots;
#[path = "../../../micro/src/balance/stamped.rs"]
mod stamped;
#[path = "../../../micro/src/balance/tally.rs"]
mod tally;
#[path = "../../../micro/src/client/throttle.rs"]
mod throttle;
#[path = "../../../micro/src/balance/policy/turn.rs"]
mod turn;
#[path = "../../../micro/src/balance/under_way.rs"]
mod under_way;

pub mod models;
mod stand_ins;
mod sync;

use stand_ins::{
    members, registry,
    request::{self, Request},
    snapshot::{self, EndpointId},
};
