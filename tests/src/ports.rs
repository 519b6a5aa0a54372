//! Free ports for servers that are told theirs, and keep them over a restart.

use std::{
    net::{TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Beneath the range that Linux takes outgoing connections' ports from (32768 on): while a server
/// is down, nothing else may get its port by chance.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on loopback that nothing has, of TCP or of UDP, and that this process has not named before.
///
/// # Panics
/// When none is free.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs run side by side: each begins elsewhere.
    let start = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        let at = ("127.0.0.1", port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}

/// The same for a server that takes another port so much higher as well.
///
/// # Panics
/// As [`free`].
pub fn free_with(offset: u16) -> u16 {
    for _ in 0..COUNT {
        let port = free();
        let other = port + offset;
        if other < FIRST + COUNT && TcpListener::bind(("127.0.0.1", other)).is_ok() {
            return port;
        }
    }
    panic!("no two ports {offset} apart between {FIRST} and {} are free", FIRST + COUNT);
}
