//! An estimate and its age.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;

/// A number and when it was written, in one word, so that neither is ever read without the other.
#[derive(Debug)]
pub(super) struct Stamped(AtomicU64);

impl Stamped {
    pub(super) fn new(value: f32) -> Self {
        Self(AtomicU64::new(Self::pack(value, 0)))
    }

    pub(super) fn load(&self) -> (f32, u32) {
        Self::unpack(self.0.load(Relaxed))
    }

    /// Writes what comes next, and returns what was there.
    pub(super) fn update(&self, now: u32, next: impl Fn(f32, u32) -> f32) -> f32 {
        let mut current = self.0.load(Relaxed);
        loop {
            let (value, at) = Self::unpack(current);
            let new = Self::pack(next(value, at), now);
            match self.0.compare_exchange_weak(current, new, Relaxed, Relaxed) {
                Ok(_) => return value,
                Err(seen) => current = seen,
            }
        }
    }

    fn pack(value: f32, at: u32) -> u64 {
        u64::from(value.to_bits()) << 32 | u64::from(at)
    }

    fn unpack(word: u64) -> (f32, u32) {
        (f32::from_bits((word >> 32) as u32), word as u32)
    }
}
