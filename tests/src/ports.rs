//! Free ports for servers that are told theirs, and keep them over a restart.

use std::{
    collections::HashSet,
    fs, io,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Beneath the range that Linux takes outgoing connections' ports from (32768 on): while a server
/// is down, nothing else may get its port by chance.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How long a process takes at most from its fork to its exec.
const TO_EXEC: Duration = Duration::from_secs(10);

/// A port that nothing has, of TCP or of UDP, and that this process has not named before.
///
/// The kernel is asked, and no socket opened to try: a process that is being started meanwhile would have
/// it, too, until its exec, and the port would be taken when its server comes to bind it.
///
/// # Panics
/// When none is free.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs run side by side: each begins elsewhere.
    let start = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    let taken = taken();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if !taken.contains(&port) {
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
        if other < FIRST + COUNT && !taken().contains(&other) {
            return port;
        }
    }
    panic!("no two ports {offset} apart between {FIRST} and {} are free", FIRST + COUNT);
}

/// Waits until nobody has this port any more, whose socket was closed: a process that was being started
/// then has it, too, until its exec.
///
/// # Panics
/// When somebody keeps it.
pub async fn left(port: u16) {
    let until = Instant::now() + TO_EXEC;
    while taken().contains(&port) {
        assert!(Instant::now() < until, "port {port} is somebody's");
        tokio::task::yield_now().await;
    }
}

/// The ports that are listened on, over TCP or UDP.
fn taken() -> HashSet<u16> {
    /// `TCP_LISTEN` of Linux.
    const LISTEN: &str = "0A";
    let mut taken = HashSet::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let sockets = match fs::read_to_string(format!("/proc/net/{protocol}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // without IPv6
            sockets => sockets.expect("Linux tells of its sockets"),
        };
        // Their number, whence, where to, the state; addresses and ports in hexadecimal.
        taken.extend(sockets.lines().filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().take(4).collect();
            let [_, own, _, state] = columns[..] else { return None };
            let is_taken = protocol.starts_with("udp") || state == LISTEN;
            let (_, port) = own.rsplit_once(':').filter(|_| is_taken)?;
            u16::from_str_radix(port, 16).ok()
        }));
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[tokio::test]
    async fn a_port_is_taken_as_long_as_somebody_listens() {
        let port = free();
        for at in ["127.0.0.1", "127.0.0.2"] {
            let tcp = TcpListener::bind((at, port)).unwrap();
            assert!(taken().contains(&port));
            drop(tcp);
            left(port).await;
            let udp = UdpSocket::bind((at, port)).unwrap();
            assert!(taken().contains(&port));
            drop(udp);
            left(port).await;
        }
        assert_ne!(free(), port);
    }
}
