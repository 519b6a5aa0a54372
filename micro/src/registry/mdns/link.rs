//! The sockets of one interface, for one of the two families.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::responder::From;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
pub(super) const PORT: u16 = 5353;

/// What the answers of a few hundred nodes take that come all at once; a system may grant less.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// An interface, as one says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// By an address of it; a link-local one may tell the interface's index, too, or 0.
    Address(IpAddr, u32),
    Interface(String),
}

impl Named {
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self, Self::Address(ip, _) if ip.is_loopback())
    }

    /// What is spoken on there: by an address of IPv4 that family alone, else both. Nothing while the
    /// interface is down.
    ///
    /// # Errors
    /// That there is no such interface.
    pub(super) fn nets(&self, interfaces: &[Interface]) -> Result<Vec<Net>, String> {
        let is_it = |interface: &&Interface| match self {
            Self::Address(ip, scope) => {
                interface.ip() == *ip && (*scope == 0 || interface.index == Some(*scope))
            }
            Self::Interface(name) => interface.name == *name,
        };
        if self.is_loopback() {
            return Ok(vec![Net::LOOPBACK]);
        }
        let Some(found) = interfaces.iter().find(is_it) else {
            return Err(self.missing(interfaces));
        };
        let all = || interfaces.iter().filter(|interface| interface.name == found.name);
        // One link, whatever further addresses it has.
        if all().any(Interface::is_loopback) {
            return Ok(vec![Net::LOOPBACK]);
        }
        if !found.is_oper_up() {
            return Ok(Vec::new());
        }
        let is_spoken = |interface: &&Interface| match self {
            Self::Address(IpAddr::V4(ip), _) => interface.ip() == *ip,
            _ => true,
        };
        let mut nets: Vec<_> = all().filter(is_spoken).filter_map(Net::v4).collect();
        let is_v4 = matches!(self, Self::Address(IpAddr::V4(_), _));
        if !is_v4 {
            nets.extend(Net::v6(all()));
        }
        Ok(nets)
    }

    fn missing(&self, interfaces: &[Interface]) -> String {
        match self {
            Self::Address(ip, _) => format!(
                "no interface of this machine has the address {ip}, and mDNS speaks on the one that \
                 does: name an address of this machine"
            ),
            Self::Interface(name) => {
                let mut names: Vec<_> = interfaces.iter().map(|it| it.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                let names = names.join(", ");
                format!(
                    "no interface of this machine that has an address is named `{name}`: it has {names}"
                )
            }
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(ip), _) => write!(f, "[{ip}]"),
            Self::Address(ip, _) => ip.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}

/// The machine's interfaces, an item for each of their addresses.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    if_addrs::get_if_addrs()
}

/// An interface, for one of the two families, and which addresses are its neighbours'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Net {
    /// The interface's index, which is the scope of its link-local addresses; 0 for loopback, where
    /// there are none.
    pub(super) index: u32,
    family: Family,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Family {
    /// For each of the interface's addresses one.
    V4 { ip: Ipv4Addr, mask: Ipv4Addr },
    /// All of its addresses together, with the lengths of their prefixes.
    V6 { name: String, prefixes: Vec<(Ipv6Addr, u8)> },
}

impl Net {
    /// By IPv4 alone: Linux has no way for multicast of IPv6 there.
    pub(super) const LOOPBACK: Self = Self {
        index: 0,
        family: Family::V4 { ip: Ipv4Addr::LOCALHOST, mask: Ipv4Addr::new(255, 0, 0, 0) },
    };

    fn v4(interface: &Interface) -> Option<Self> {
        match &interface.addr {
            IfAddr::V4(addr) => Some(Self {
                index: interface.index.unwrap_or(0),
                family: Family::V4 { ip: addr.ip, mask: addr.netmask },
            }),
            IfAddr::V6(_) => None,
        }
    }

    fn v6<'a>(of_one: impl Iterator<Item = &'a Interface>) -> Option<Self> {
        let (mut index, mut name, mut prefixes) = (0, "", Vec::new());
        for interface in of_one {
            if let IfAddr::V6(addr) = &interface.addr {
                (index, name) = (interface.index.unwrap_or(0), &interface.name);
                prefixes.push((addr.ip, addr.prefixlen));
            }
        }
        // The system lists them in no order of its own.
        prefixes.sort_unstable();
        (!prefixes.is_empty())
            .then(|| Self { index, family: Family::V6 { name: name.to_owned(), prefixes } })
    }

    /// Where a packet came from that was heard here; none if it is not of this link, from where alone
    /// mDNS may come (RFC 6762, section 11).
    pub(super) fn sender(&self, from: SocketAddr) -> Option<SocketAddr> {
        match (from, &self.family) {
            // Linux has no other for who does not name the loopback interface, and for whom all
            // multicast goes there: go-micro in a network without any other.
            (SocketAddr::V4(v4), Family::V4 { ip, .. })
                if v4.ip().is_unspecified() && *self == Self::LOOPBACK =>
            {
                Some(SocketAddrV4::new(*ip, v4.port()).into())
            }
            (SocketAddr::V6(v6), _) if v6.ip().is_unicast_link_local() => {
                (v6.scope_id() == self.index && self.is_v6()).then_some(from)
            }
            _ => self.is_neighbour(from.ip()).then_some(from),
        }
    }

    /// Whether an address is on this link, by its prefix.
    pub(super) fn is_neighbour(&self, ip: IpAddr) -> bool {
        match (ip, &self.family) {
            (IpAddr::V4(v4), Family::V4 { ip, mask }) => v4 & *mask == *ip & *mask,
            (IpAddr::V6(v6), Family::V6 { prefixes, .. }) => prefixes.iter().any(|(ip, length)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                v6.to_bits() & mask == ip.to_bits() & mask
            }),
            _ => false,
        }
    }

    fn is_v6(&self) -> bool {
        matches!(self.family, Family::V6 { .. })
    }

    /// Everybody here.
    fn group(&self) -> SocketAddr {
        match self.family {
            Family::V4 { .. } => SocketAddrV4::new(GROUP_V4, PORT).into(),
            Family::V6 { .. } => SocketAddrV6::new(GROUP_V6, PORT, 0, self.index).into(),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.family {
            Family::V4 { ip, .. } => write!(f, "the interface of {ip}"),
            Family::V6 { name, .. } => write!(f, "IPv6 on the interface {name}"),
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
    Multicast(Net, io::Error),
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
            Self::Multicast(net, error) => {
                write!(f, "multicast does not work here: {net}: {error}")
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
        let (shared, own) = (shared(&net)?, own(&net)?);
        Ok(Self { net, shared, own })
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
        socket.send_to(bytes, to.unwrap_or(self.net.group())).await.map(drop)
    }
}

fn shared(net: &Net) -> Result<UdpSocket, OpenError> {
    let fail = |error| OpenError::Multicast(net.clone(), error);
    let socket = socket(net)?;
    socket.set_reuse_address(true).map_err(fail)?;
    // Not on Linux, which needs it not, and hands a packet from a wire to any one of those who have
    // set it, whatever interface they have joined on.
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    socket.set_reuse_port(true).map_err(fail)?;
    // Bound to the group where the system allows: what is sent to the machine's own address at this
    // port is for whoever else is there, and would come to one of us at random.
    let mut bound = net.group();
    if !cfg!(unix) {
        bound.set_ip(if net.is_v6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        });
    }
    socket.bind(&bound.into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::Held,
        _ => fail(error),
    })?;
    join(&socket, net).map_err(fail)?;
    UdpSocket::from_std(socket.into()).map_err(OpenError::NoSocket)
}

fn join(socket: &Socket, net: &Net) -> io::Result<()> {
    // Else what others have joined on further interfaces would come in here too.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match net.family {
        Family::V4 { .. } => socket.set_multicast_all_v4(false)?,
        Family::V6 { .. } => socket.set_multicast_all_v6(false)?,
    }
    match &net.family {
        Family::V4 { ip, .. } => socket.join_multicast_v4(&GROUP_V4, ip),
        Family::V6 { .. } => socket.join_multicast_v6(&GROUP_V6, net.index),
    }
}

fn own(net: &Net) -> Result<UdpSocket, OpenError> {
    let socket = socket(net)?;
    let bound: SocketAddr = match &net.family {
        Family::V4 { ip, .. } => SocketAddrV4::new(*ip, 0).into(),
        // The system takes the link-local one, once it is sure that nobody else has it.
        Family::V6 { .. } => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0).into(),
    };
    let bound = socket.bind(&bound.into());
    bound.map_err(|error| OpenError::Multicast(net.clone(), error))?;
    UdpSocket::from_std(socket.into()).map_err(OpenError::NoSocket)
}

fn socket(net: &Net) -> Result<Socket, OpenError> {
    let domain = if net.is_v6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
    let socket = socket.map_err(OpenError::NoSocket)?;
    set_up(&socket, net).map_err(|error| OpenError::Multicast(net.clone(), error))?;
    Ok(socket)
}

fn set_up(socket: &Socket, net: &Net) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // A TTL of 255: RFC 6762, section 11.
    match &net.family {
        Family::V4 { ip, .. } => {
            socket.set_multicast_if_v4(ip)?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(255)?;
        }
        Family::V6 { .. } => {
            socket.set_only_v6(true)?;
            socket.set_multicast_if_v6(net.index)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_hops_v6(255)?;
        }
    }
    // Less is no error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, index: u32, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: Ipv4Addr::new(255, 255, 255, 0),
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: Ipv6Addr::UNSPECIFIED,
                prefixlen: 64,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo", 1, "127.0.0.1"),
            interface("lo", 1, "::1"),
            interface("lo", 1, "10.2.0.1"),
            interface("lo", 1, "fd02::1"),
            interface("eth0", 2, "fd00::1"),
            interface("eth0", 2, "10.0.0.1"),
            interface("eth0", 2, "10.0.1.1"),
            interface("eth0", 2, "fe80::1"),
            interface("eth1", 3, "fd01::2"),
            interface("eth1", 3, "fe80::1"),
        ]
    }

    fn by_address(ip: &str, scope: u32) -> Named {
        Named::Address(ip.parse().unwrap(), scope)
    }

    #[test]
    fn an_interface_is_found_by_an_address_or_its_name() {
        let all = machine();
        let nets = |named: &Named| {
            let nets = named.nets(&all).unwrap();
            nets.iter().map(Net::to_string).collect::<Vec<_>>()
        };
        let both = [
            "the interface of 10.0.0.1",
            "the interface of 10.0.1.1",
            "IPv6 on the interface eth0",
        ];
        assert_eq!(nets(&by_address("10.0.1.1", 0)), ["the interface of 10.0.1.1"]);
        assert_eq!(nets(&by_address("fd00::1", 0)), both);
        assert_eq!(nets(&Named::Interface("eth0".to_owned())), both);
        assert_eq!(nets(&by_address("fe80::1", 3)), ["IPv6 on the interface eth1"]);
        for loopback in [
            by_address("127.0.0.3", 0),
            by_address("::1", 0),
            by_address("10.2.0.1", 0),
            by_address("fd02::1", 0),
            Named::Interface("lo".to_owned()),
        ] {
            assert_eq!(loopback.nets(&all), Ok(vec![Net::LOOPBACK]));
        }
        for (named, why) in [
            (by_address("10.0.0.2", 0), "no interface of this machine has the address 10.0.0.2"),
            (by_address("fe80::1", 9), "no interface of this machine has the address fe80::1"),
            (Named::Interface("eth2".to_owned()), "is named `eth2`: it has eth0, eth1, lo"),
        ] {
            let error = named.nets(&all).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn nothing_is_spoken_on_an_interface_that_is_down() {
        let mut all = machine();
        all.iter_mut().for_each(|interface| interface.oper_status = IfOperStatus::Down);
        assert_eq!(by_address("10.0.1.1", 0).nets(&all), Ok(vec![]));
        assert_eq!(by_address("127.0.0.1", 0).nets(&all), Ok(vec![Net::LOOPBACK]));
    }

    #[test]
    fn neighbours_are_on_the_link() {
        let all = machine();
        let of = |named: Named| named.nets(&all).unwrap().pop().unwrap();
        let (v4, v6) = (of(by_address("10.0.0.1", 0)), of(Named::Interface("eth0".to_owned())));
        for (net, from, expected) in [
            (&v4, "10.0.0.200:1", "10.0.0.200:1"),
            (&v4, "10.0.1.1:1", "none"),
            (&v4, "[fd00::1]:1", "none"),
            (&v4, "[fe80::7%2]:1", "none"),
            (&v4, "0.0.0.0:1", "none"),
            (&v6, "[fd00::200]:1", "[fd00::200]:1"),
            (&v6, "[fd01::200]:1", "none"),
            (&v6, "[fe80::7%2]:1", "[fe80::7%2]:1"),
            (&v6, "[fe80::7%3]:1", "none"),
            (&v6, "10.0.0.200:1", "none"),
            (&Net::LOOPBACK, "127.9.9.9:1", "127.9.9.9:1"),
            (&Net::LOOPBACK, "0.0.0.0:1", "127.0.0.1:1"),
            (&Net::LOOPBACK, "10.0.0.1:1", "none"),
        ] {
            let sender = net.sender(from.parse().unwrap());
            let sender = sender.map_or("none".to_owned(), |from| from.to_string());
            assert_eq!(sender, expected, "{from} on {net:?}");
        }
    }
}
