//! The multicast of a [namespace](crate::namespace)'s loopback interface, which can be cut and
//! silenced, and nothing else with it: by policies of IPsec, which every kernel has that has namespaces.

use std::{fs, io, net::Ipv4Addr, time::Duration};

use socket2::SockRef;
use tokio::{net::UdpSocket, process::Command, time::timeout};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// mDNS's group on the loopback interface.
#[derive(Debug)]
pub struct Multicast(());

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
        Self(())
    }

    /// Refuses to send anything to the group.
    ///
    /// # Panics
    /// When `ip` does not do it.
    pub async fn cut(&self) {
        policy("out").await;
        is_heard(Duration::ZERO).await.expect_err("nothing can be sent");
    }

    /// Loses whatever is sent to the group, and says nothing of it.
    ///
    /// # Panics
    /// As [`Multicast::cut`].
    pub async fn silence(&self) {
        policy("in").await;
        assert!(!is_heard(Duration::from_millis(200)).await.expect("it is sent"));
    }

    /// Is as it was at first.
    ///
    /// # Panics
    /// As [`Multicast::new`].
    pub async fn mend(&self) {
        ip("xfrm policy flush").await;
        assert!(is_heard(Duration::from_secs(1)).await.expect("it is sent"));
    }
}

async fn policy(direction: &str) {
    ip(&format!("xfrm policy add dst {GROUP}/32 dir {direction} action block")).await;
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
