//! The sockets of one interface.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::responder::From;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(super) const PORT: u16 = 5353;

/// What the answers of a few hundred nodes take that come all at once; a system may grant less.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// An interface's address, and which addresses are its neighbours'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Net {
    pub(super) ip: Ipv4Addr,
    mask: Ipv4Addr,
}

impl Net {
    pub(super) const LOOPBACK: Self =
        Self { ip: Ipv4Addr::LOCALHOST, mask: Ipv4Addr::new(255, 0, 0, 0) };

    /// The interface that has this address.
    ///
    /// # Errors
    /// That there is none, or that it has no IPv4 address, which the group is reached by.
    pub(super) fn of(ip: IpAddr) -> Result<Self, String> {
        if ip.is_loopback() {
            return Ok(Self::LOOPBACK);
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        Self::among(&interfaces, ip)
    }

    fn among(interfaces: &[Interface], ip: IpAddr) -> Result<Self, String> {
        let Some(of_ip) = interfaces.iter().find(|interface| interface.ip() == ip) else {
            return Err(format!(
                "no interface of this machine has the address {ip}, and mDNS speaks on the one that \
                 does: name an address of this machine"
            ));
        };
        let of_name = interfaces.iter().filter(|interface| interface.name == of_ip.name);
        // Of its IPv4 addresses the very one first.
        let v4 = of_name.filter_map(|interface| match &interface.addr {
            IfAddr::V4(addr) => Some(Self { ip: addr.ip, mask: addr.netmask }),
            IfAddr::V6(_) => None,
        });
        v4.min_by_key(|net| ip != net.ip).ok_or_else(|| {
            let name = &of_ip.name;
            format!(
                "the interface {name}, which has the address {ip}, has none of IPv4, by which mDNS \
                 speaks: give it one, or name an address of another interface"
            )
        })
    }

    /// The address of who sent a packet from here; none if it is not on this link, from where alone
    /// mDNS may come (RFC 6762, section 11).
    pub(super) fn sender(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            // Linux has no other for who does not name the loopback interface, and for whom all
            // multicast goes there: go-micro in a network without any other.
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) if *self == Self::LOOPBACK => Some(self.ip.into()),
            IpAddr::V4(v4) if v4 & self.mask == self.ip & self.mask => Some(ip),
            _ => None,
        }
    }
}

/// Why an interface is not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The system has no socket for us: at another time it may.
    NoSocket(io::Error),
    /// Another has the port to itself.
    Held,
    /// The interface cannot be used.
    Multicast(Ipv4Addr, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket(error) => write!(f, "no socket can be opened: {error}"),
            Self::Held => write!(
                f,
                "UDP port {PORT} is held by a process that does not share it: end that process \
                 (`ss -lunp` names it)"
            ),
            Self::Multicast(ip, error) => {
                write!(f, "multicast does not work here: the interface of {ip}: {error}")
            }
        }
    }
}

/// An interface, open.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) net: Net,
    /// Hears what is sent to all. Other processes have it too.
    pub(super) shared: UdpSocket,
    /// Hears what is sent to us alone.
    pub(super) own: UdpSocket,
}

impl Link {
    /// # Errors
    /// The system's, where there is no socket or the group cannot be joined.
    pub(super) fn open(net: Net) -> Result<Self, OpenError> {
        Ok(Self { net, shared: shared(net)?, own: own(net)? })
    }

    pub(super) async fn send(
        &self,
        bytes: &[u8],
        from: From,
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        let socket = match from {
            From::Shared => &self.shared,
            From::Own => &self.own,
        };
        let to = to.unwrap_or(SocketAddrV4::new(GROUP, PORT).into());
        socket.send_to(bytes, to).await.map(drop)
    }
}

fn shared(net: Net) -> Result<UdpSocket, OpenError> {
    let fail = |error| OpenError::Multicast(net.ip, error);
    let socket = socket(net)?;
    socket.set_reuse_address(true).map_err(fail)?;
    // Not on Linux, which needs it not, and hands a packet from a wire to any one of those who have
    // set it, whatever interface they have joined on.
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    socket.set_reuse_port(true).map_err(fail)?;
    // Bound to the group where the system allows: what is sent to the machine's own address at this
    // port is for whoever else is there, and would come to one of us at random.
    let ip = if cfg!(unix) { GROUP } else { Ipv4Addr::UNSPECIFIED };
    socket.bind(&SocketAddrV4::new(ip, PORT).into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::Held,
        _ => fail(error),
    })?;
    // Else what others have joined on further interfaces would come in here too.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_multicast_all_v4(false).map_err(fail)?;
    socket.join_multicast_v4(&GROUP, &net.ip).map_err(fail)?;
    UdpSocket::from_std(socket.into()).map_err(OpenError::NoSocket)
}

fn own(net: Net) -> Result<UdpSocket, OpenError> {
    let socket = socket(net)?;
    let bound = socket.bind(&SocketAddrV4::new(net.ip, 0).into());
    bound.map_err(|error| OpenError::Multicast(net.ip, error))?;
    UdpSocket::from_std(socket.into()).map_err(OpenError::NoSocket)
}

fn socket(net: Net) -> Result<Socket, OpenError> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
    let socket = socket.map_err(OpenError::NoSocket)?;
    set_up(&socket, net).map_err(|error| OpenError::Multicast(net.ip, error))?;
    Ok(socket)
}

fn set_up(socket: &Socket, net: Net) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&net.ip)?;
    socket.set_multicast_loop_v4(true)?;
    // RFC 6762, section 11.
    socket.set_multicast_ttl_v4(255)?;
    // Less is no error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: Ipv4Addr::new(255, 255, 255, 0),
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: std::net::Ipv6Addr::UNSPECIFIED,
                prefixlen: 64,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    #[test]
    fn the_interface_of_an_address_is_found() {
        let all = [
            interface("lo", "127.0.0.1"),
            interface("eth0", "fd00::1"),
            interface("eth0", "10.0.0.1"),
            interface("eth0", "10.0.1.1"),
            interface("eth1", "fd00::2"),
        ];
        let of = |ip: &str| Net::among(&all, ip.parse().unwrap()).map(|net| net.ip.to_string());
        assert_eq!(of("10.0.1.1"), Ok("10.0.1.1".to_owned()));
        assert_eq!(of("fd00::1"), Ok("10.0.0.1".to_owned()));
        for (ip, named, remedy) in [
            ("fd00::2", "eth1", "an address of another interface"),
            ("10.0.0.2", "10.0.0.2", "an address of this machine"),
        ] {
            let why = of(ip).unwrap_err();
            assert!(why.contains(named) && why.contains(remedy), "{why}");
        }
        assert_eq!(Net::of("127.0.0.3".parse().unwrap()), Ok(Net::LOOPBACK));
    }

    #[test]
    fn neighbours_are_on_the_link() {
        let net = Net::among(&[interface("eth0", "10.0.0.1")], [10, 0, 0, 1].into()).unwrap();
        let sender = |net: Net, ip: &str| {
            net.sender(ip.parse().unwrap()).map_or("none".to_owned(), |ip| ip.to_string())
        };
        for (net, ip, expected) in [
            (net, "10.0.0.200", "10.0.0.200"),
            (net, "10.0.1.1", "none"),
            (net, "fd00::1", "none"),
            (net, "0.0.0.0", "none"),
            (Net::LOOPBACK, "127.9.9.9", "127.9.9.9"),
            (Net::LOOPBACK, "0.0.0.0", "127.0.0.1"),
            (Net::LOOPBACK, "10.0.0.1", "none"),
        ] {
            assert_eq!(sender(net, ip), expected, "{ip} on {net:?}");
        }
    }
}
