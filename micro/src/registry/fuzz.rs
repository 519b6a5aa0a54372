//! What every test makes its inputs with that gives a decoder whatever somebody may write into a
//! registry: records of real peers and of ours, changed in their structure first, and then as bytes.
//!
//! `MICRO_FUZZ_INPUTS` says how many there are; each follows from its number alone.

use std::{
    alloc::System,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use fastrand::Rng;
use serde_json::{Map, Number, Value as Json, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many inputs there are when nobody says: some seconds of a debug build.
const INPUTS: u64 = 2_000;

/// The bytes that a decoder may allocate for each of a record's, all told, and for any record.
pub(super) const PER_BYTE: usize = 64;
pub(super) const FOR_ANY: usize = 2048;

/// How often one is measured that takes more: tests beside this one allocate, too, for a while.
const MEASURED: usize = 20_000;

/// One test at a time: what another allocates is counted, too.
static ALONE: Mutex<()> = Mutex::new(());

pub(super) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many inputs there are.
pub(super) fn inputs() -> u64 {
    env::var("MICRO_FUZZ_INPUTS")
        .map_or(INPUTS, |inputs| inputs.parse().expect("MICRO_FUZZ_INPUTS is a number of inputs"))
}

/// What inputs are made of.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) seeds: Vec<Vec<u8>>,
    /// What decoders look for.
    pub(super) keys: &'static [&'static str],
}

const TEXTS: [&str; 14] = [
    "",
    "h:1",
    "[::1]:1",
    "h",
    "h:0",
    ":",
    "://",
    "grpc://",
    "grpc://h:1?isSecure=false",
    "grpcs://[",
    "http://h:1",
    "grpc",
    "\u{0}\u{2028}<&>",
    "\u{10ffff}",
];

/// What may stand in the midst of a record, as bytes.
const PIECES: [&[u8]; 12] = [
    b"1e999",
    b"-0",
    b"99999999999999999999999",
    b"null",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xff",
    b"{",
    b"[",
    b"\"a\":",
    b",",
    b"  ",
];

impl Maker {
    /// The input of this number.
    pub(super) fn input(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.seeds[rng.usize(..self.seeds.len())].clone();
        if let Ok(mut json) = serde_json::from_slice::<Json>(&bytes) {
            for _ in 0..rng.usize(..4) {
                self.change(&mut json, rng);
            }
            bytes = json.to_string().into_bytes();
        }
        for _ in 0..[0, 0, 1, 3][rng.usize(..4)] {
            cut(&mut bytes, rng);
        }
        bytes
    }

    /// Changes something somewhere in the tree.
    fn change(&self, json: &mut Json, rng: &mut Rng) {
        let goes_on = rng.u8(..4) > 0;
        match json {
            Json::Array(items) if goes_on && !items.is_empty() => {
                let index = rng.usize(..items.len());
                match rng.u8(..8) {
                    0 => drop(items.remove(index)),
                    1 => items.push(items[index].clone()),
                    _ => self.change(&mut items[index], rng),
                }
            }
            Json::Object(fields) if goes_on && !fields.is_empty() => {
                let index = rng.usize(..fields.len());
                let Some(key) = fields.keys().nth(index).cloned() else { return };
                let known = self.keys[rng.usize(..self.keys.len())];
                match rng.u8(..8) {
                    0 => drop(fields.remove(&key)),
                    1 => rename(fields, &key, &key.to_uppercase()),
                    2 => rename(fields, &key, known),
                    3 => drop(fields.insert(known.to_owned(), value(rng))),
                    _ => {
                        let inner = fields.values_mut().nth(index);
                        inner.into_iter().for_each(|it| self.change(it, rng));
                    }
                }
            }
            json => *json = value(rng),
        }
    }
}

/// Hands every input to `check`, which tells how many of some kinds of records it still is, and names
/// the one at which it panics. Of every 200 inputs at least one is to be one of each kind, or little
/// would be tried.
pub(super) fn each<const KINDS: usize>(
    make: impl Fn(&mut Rng) -> Vec<u8>,
    check: impl Fn(&[u8]) -> [bool; KINDS],
) {
    let mut read = [0_u64; KINDS];
    for number in 0..inputs() {
        let bytes = make(&mut Rng::with_seed(number));
        let Ok(is_read) = catch_unwind(AssertUnwindSafe(|| check(&bytes))) else {
            let start = bytes[..bytes.len().min(2000)].escape_ascii();
            panic!("input {number}, {} bytes: {start}", bytes.len());
        };
        for (read, is_read) in read.iter_mut().zip(is_read) {
            *read += u64::from(is_read);
        }
    }
    assert!(read.iter().all(|read| *read >= inputs() / 200), "{read:?} of {}", inputs());
}

/// What comes of it, and the bytes that it allocated, measured anew while those are too many.
pub(super) fn allocated<T>(most: usize, run: impl Fn() -> T) -> (T, usize) {
    let measured = || {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let outcome = run();
        (outcome, region.change().bytes_allocated)
    };
    let (outcome, mut took) = measured();
    for _ in 1..MEASURED {
        if took <= most {
            break;
        }
        thread::yield_now();
        took = took.min(measured().1);
    }
    (outcome, took)
}

fn rename(fields: &mut Map<String, Json>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

fn value(rng: &mut Rng) -> Json {
    let depth = rng.usize(..200);
    match rng.u8(..14) {
        0 => vec![leaf(rng); rng.usize(..300)].into(),
        1 => (0..depth).map(|n| (n.to_string(), leaf(rng))).collect(),
        2 => (0..depth).fold(leaf(rng), |inner, _| json!([inner])),
        3 => (0..depth / 3).fold(json!({}), |inner, _| json!({ "values": [inner] })),
        4 => TEXTS[rng.usize(..TEXTS.len())].repeat(depth).into(),
        _ => leaf(rng),
    }
}

fn leaf(rng: &mut Rng) -> Json {
    match rng.u8(..12) {
        0 => Json::Null,
        1 => json!(rng.bool()),
        2 => json!([0, -1, i64::MIN, i64::MAX, 7][rng.usize(..5)]),
        3 => json!(u64::MAX),
        4 => Number::from_f64([1e308, -0.5, 1e-300][rng.usize(..3)]).into(),
        5 => json!({}),
        6 => json!([]),
        _ => TEXTS[rng.usize(..TEXTS.len())].into(),
    }
}

/// Changes the bytes, whatever they mean.
pub(super) fn cut(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let (at, other) = (rng.usize(..length), rng.usize(..length));
    match rng.u8(..5) {
        0 => bytes[at] = rng.u8(..),
        1 => bytes.truncate(at),
        2 => {
            bytes.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied());
        }
        3 => {
            let part = bytes[at..length.min(at + 40)].to_vec();
            bytes.splice(other..other, part);
        }
        _ => drop(bytes.drain(at.min(other)..at.max(other))),
    }
}
