//! The multicast of a [namespace](crate::namespace)'s loopback interface, which can be cut, silenced and
//! slowed, and nothing else with it: by policies of IPsec, which every kernel has that has namespaces.

use std::{
    fs, io,
    io::Read,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::UdpSocket,
    process::Command,
    sync::mpsc::{self, UnboundedSender},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// IPv4, as a socket of packets is asked for it: in the network's order.
const IPV4: i32 = 0x0800_u16.to_be() as i32;

/// Sends packets with the header that they have.
const RAW: i32 = 255;

/// The mark of packets that are let through, and the TTL by which they are known as ours.
const MARK: u32 = 1;
const OURS: u8 = 77;

/// mDNS's group on the loopback interface.
#[derive(Debug)]
pub struct Multicast {
    delay: Option<JoinHandle<()>>,
}

impl Multicast {
    /// As it is: good.
    ///
    /// # Panics
    /// Outside of a namespace of the test's own; when nothing sent to the group is heard.
    pub async fn new() -> Self {
        // Else policies do not hold there.
        let policies = fs::write("/proc/sys/net/ipv4/conf/lo/disable_policy", "0")
            .and_then(|()| fs::write("/proc/sys/net/ipv4/conf/lo/disable_xfrm", "0"));
        policies.expect("the namespace's settings are ours");
        assert!(is_heard(Duration::from_secs(1)).await.expect("it is sent"));
        Self { delay: None }
    }

    /// Refuses to send anything to the group.
    ///
    /// # Panics
    /// When `ip` does not do it.
    pub async fn cut(&self) {
        policy("out", "").await;
        is_heard(Duration::ZERO).await.expect_err("nothing can be sent");
    }

    /// Loses whatever is sent to the group, and says nothing of it.
    ///
    /// # Panics
    /// As [`Multicast::cut`].
    pub async fn silence(&self) {
        policy("in", "").await;
        assert!(!is_heard(Duration::from_millis(200)).await.expect("it is sent"));
    }

    /// Takes so much longer to carry anything to the group.
    ///
    /// # Panics
    /// As [`Multicast::cut`].
    pub async fn slow(&mut self, by: Duration) {
        self.delay = Some(tokio::spawn(delay(by).expect("sockets of packets")));
        policy("in", &format!(" mark 0 mask {MARK}")).await;
        let (early, late) = (by - Duration::from_millis(200), by + Duration::from_secs(1));
        assert!(!is_heard(early).await.expect("it is sent"), "sooner than in {by:?}");
        assert!(is_heard(late).await.expect("it is sent"), "not after {late:?}");
    }

    /// Is as it was at first.
    ///
    /// # Panics
    /// As [`Multicast::new`].
    pub async fn mend(&mut self) {
        ip("xfrm policy flush").await;
        if let Some(delay) = self.delay.take() {
            delay.abort();
        }
        assert!(is_heard(Duration::from_secs(1)).await.expect("it is sent"));
    }
}

impl Drop for Multicast {
    fn drop(&mut self) {
        if let Some(delay) = &self.delay {
            delay.abort();
        }
    }
}

async fn policy(direction: &str, which: &str) {
    ip(&format!("xfrm policy add dst {GROUP}/32 dir {direction} action block{which}")).await;
}

async fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().await;
    assert!(done.expect("ip, of iproute2, runs").success(), "ip {arguments}");
}

/// Whether what is sent to the group is heard in time: at a port where nobody else is.
async fn is_heard(within: Duration) -> io::Result<bool> {
    let hearing = UdpSocket::bind((GROUP, 0)).await?;
    hearing.join_multicast_v4(GROUP, Ipv4Addr::LOCALHOST)?;
    let sending = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    SockRef::from(&sending).set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    sending.send_to(b"?", hearing.local_addr()?).await?;
    Ok(timeout(within, hearing.recv(&mut [0])).await.is_ok())
}

/// Carries each packet to the group once more, so much later and marked.
fn delay(by: Duration) -> io::Result<impl Future<Output = ()>> {
    let sending = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
    sending.set_mark(MARK)?;
    sending.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    // Packets before policies, without the Ethernet header.
    let packets = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(IPV4)))?;
    packets.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (tell, mut told) = mpsc::unbounded_channel();
    // No runtime has sockets of this kind.
    thread::spawn(move || read(packets, &tell));
    Ok(async move {
        while let Some((at, packet)) = told.recv().await {
            sleep_until(at + by).await;
            let to = SocketAddr::from(SocketAddrV4::new(GROUP, 0));
            sending.send_to(&packet, &to.into()).expect("a packet is sent");
        }
    })
}

/// Tells of others' packets to the group as long as somebody hears.
fn read(mut packets: Socket, tell: &UnboundedSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 1 << 16];
    while !tell.is_closed() {
        let Ok(length) = packets.read(&mut buffer) else { continue };
        let packet = &mut buffer[..length];
        let is_to_group = packet.get(16..20) == Some(&GROUP.octets()[..]);
        if is_to_group && packet[8] != OURS {
            packet[8] = OURS;
            // The loopback interface leaves UDP's checksum half done; 0 is for none.
            let udp = usize::from(packet[0] & 0xf) * 4;
            packet[udp + 6..udp + 8].fill(0);
            let _ = tell.send((Instant::now(), packet.to_vec()));
        }
    }
}
