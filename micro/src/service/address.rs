//! Which address a node puts into its record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::{Error, registry::is_loopback};

/// What a wildcard stands for.
#[derive(Debug)]
pub(super) struct Machine {
    /// The addresses of its interfaces, in the system's order.
    addresses: Vec<IpAddr>,
    /// Whether what listens on `[::]` takes no IPv4, as `bindv6only` has it.
    is_ipv6_apart: bool,
}

impl Machine {
    pub(super) fn this() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None);
        Self {
            addresses: interfaces.iter().map(if_addrs::Interface::ip).collect(),
            is_ipv6_apart: socket.and_then(|socket| socket.only_v6()).unwrap_or(false),
        }
    }

    /// The address itself, or for a wildcard one of this machine's that takes its calls: a private
    /// one first, as go-micro has it, loopback last, and of equal ones IPv4 before IPv6.
    fn reachable(&self, bound: IpAddr) -> IpAddr {
        let bound = bound.to_canonical();
        if !bound.is_unspecified() {
            return bound;
        }
        let takes_ipv4 = bound.is_ipv4() || !self.is_ipv6_apart;
        let takes_ipv6 = bound.is_ipv6();
        let loopback =
            if takes_ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        self.addresses
            .iter()
            .copied()
            .filter(|ip| if ip.is_ipv4() { takes_ipv4 } else { takes_ipv6 })
            .filter(|ip| !ip.is_loopback() && !is_link_local(*ip))
            .min_by_key(|ip| (!is_private(*ip), ip.is_ipv6()))
            .unwrap_or(loopback)
    }
}

/// The address for the record: `advertise` if given, with the bound port where it names none or
/// port 0; else, or where it is a wildcard, the bound address or what a wildcard stands for.
pub(super) fn advertised(
    advertise: Option<&str>,
    bound: SocketAddr,
    machine: &Machine,
) -> Result<String, Error> {
    let Some(advertise) = advertise else {
        let mut address = SocketAddr::new(machine.reachable(bound.ip()), bound.port());
        // A link-local one is none without its interface.
        if let (SocketAddr::V6(address), SocketAddr::V6(bound)) = (&mut address, bound)
            && address.ip() == bound.ip()
        {
            address.set_scope_id(bound.scope_id());
        }
        return Ok(address.to_string());
    };
    if let Some((_, zone)) = advertise.split_once('%') {
        let zone = zone.split(']').next().unwrap_or(zone);
        return Err(Error::config(format!(
            "the advertised address '{advertise}' has the zone %{zone}, which means nothing on \
             another host: advertise an address without a zone, or leave it out to advertise the \
             address that is listened on"
        )));
    }
    let (host, port) = split(advertise).ok_or_else(|| {
        Error::config(format!(
            "the advertised address '{advertise}' is not of the form host:port, host or [ipv6]:port"
        ))
    })?;
    if is_number(host) {
        return Err(Error::config(format!(
            "the advertised address '{advertise}' names no host, but the number {host}: write \
             host:{host}, or leave it out to advertise the address that is listened on"
        )));
    }
    if let Ok(ip) = host.parse::<IpAddr>()
        && is_of_many(ip)
    {
        return Err(Error::config(format!(
            "the advertised address '{advertise}' is a multicast or broadcast address, which no \
             connection can be made to: advertise an address of this machine, or leave it out"
        )));
    }
    let port = if port == 0 { bound.port() } else { port };
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            SocketAddr::new(machine.reachable(bound.ip()), port).to_string()
        }
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    })
}

/// Refuses what can be listened on, but not be connected to.
pub(super) fn check_bound(bound: SocketAddr) -> Result<(), Error> {
    if is_of_many(bound.ip()) {
        return Err(Error::config(format!(
            "the server cannot be called at {bound}: it is a multicast or broadcast address, which \
             no connection can be made to; listen on an address of this machine, or on 0.0.0.0 for \
             all"
        )));
    }
    Ok(())
}

/// The line of the log for a node that cannot be called, by nobody or, where other machines find it,
/// by those. `asked` is what was to be listened on, `bound` what is, `address` what is advertised.
pub(super) fn unreachable(
    asked: &str,
    bound: SocketAddr,
    address: &str,
    is_shared: bool,
) -> Option<String> {
    // Asked for again, an ephemeral port would be one that somebody else may have by then.
    let port = if asked.ends_with(":0") { 0 } else { bound.port() };
    let ip = bound.ip().to_canonical();
    let advertised = address.parse().ok().map(|address: SocketAddr| address.ip().to_canonical());
    match advertised {
        Some(to) if ip.is_loopback() && !to.is_loopback() => Some(format!(
            "the node advertises {address} and listens on {bound}, which takes calls from this \
             machine alone: set MICRO_SERVER_ADDRESS=0.0.0.0:{port} to listen on every interface, \
             unless something here forwards the calls"
        )),
        Some(to) if to.is_loopback() && !ip.is_loopback() && !ip.is_unspecified() => Some(format!(
            "the node advertises {address} and listens on {bound}, which takes no calls to a \
             loopback address: leave MICRO_SERVER_ADVERTISE out to advertise {bound}"
        )),
        _ if !is_shared || !is_loopback(address) => None,
        _ if ip.is_loopback() => Some(format!(
            "callers on other machines cannot reach {address}: set \
             MICRO_SERVER_ADDRESS=0.0.0.0:{port} to listen on every interface, and \
             MICRO_SERVER_ADVERTISE where the address that leads here is another"
        )),
        _ => Some(format!(
            "callers on other machines cannot reach {address}: set MICRO_SERVER_ADVERTISE to the \
             address that leads here"
        )),
    }
}

/// Whether it stands for a group of machines.
fn is_of_many(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether this is a number: a port without its host, most likely. Resolvers take it for an IPv4
/// address (8080 is 0.0.31.144).
fn is_number(host: &str) -> bool {
    host.bytes().all(|b| b.is_ascii_digit())
}

/// Whether only this machine's neighbours know it, and only by the interface's name.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// The host without brackets, and the port or 0.
fn split(address: &str) -> Option<(&str, u16)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').map_or(Some(0), |port| port.parse().ok())?;
        return host.parse::<std::net::Ipv6Addr>().ok().map(|_| (host, port));
    }
    let (host, port) = match address.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            return address.parse::<std::net::Ipv6Addr>().ok().map(|_| (address, 0));
        }
        Some((host, port)) => (host, port.parse().ok()?),
        None => (address, 0),
    };
    let is_host = !host.is_empty()
        && !host.starts_with('-')
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(addresses: &[&str]) -> Machine {
        let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
        Machine { addresses, is_ipv6_apart: false }
    }

    #[test]
    fn the_bound_port_completes_what_is_advertised() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        for (advertise, record) in [
            (None, "127.0.0.1:3456"),
            (Some("greeter.local"), "greeter.local:3456"),
            (Some("greeter.local:0"), "greeter.local:3456"),
            (Some("10.0.0.7:99"), "10.0.0.7:99"),
            (Some("[fd00::7]:99"), "[fd00::7]:99"),
            (Some("fd00::7"), "[fd00::7]:3456"),
        ] {
            assert_eq!(advertised(advertise, bound, &machine(&[])).expect("valid"), record);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        for wrong in ["", ":80", "host:port", "host:99999", "http://host", "[::1", "a b:1", "-x"] {
            let error = advertised(Some(wrong), bound, &machine(&[])).expect_err(wrong);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_zone_is_refused_and_told_to_mean_nothing_elsewhere() {
        let bound = "[fe80::1%3]:80".parse().expect("an address");
        for wrong in ["[fe80::1%3]:80", "[fe80::1%3]", "fe80::1%3"] {
            let error = advertised(Some(wrong), bound, &machine(&[])).expect_err(wrong);
            let named = format!("'{wrong}' has the zone %3, which means nothing on another host");
            let text = error.to_string();
            assert!(text.contains(&named) && text.contains("without a zone"), "{text}");
        }
        assert_eq!(advertised(None, bound, &machine(&[])).expect("valid"), "[fe80::1%3]:80");
    }

    #[test]
    fn a_port_without_its_host_is_refused() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        for (wrong, instead) in [("0", "host:0"), ("8080", "host:8080"), ("8080:0", "host:8080")] {
            let error = advertised(Some(wrong), bound, &machine(&[])).expect_err(wrong);
            assert!(error.to_string().contains(instead), "{error}");
        }
    }

    #[test]
    fn a_group_of_machines_cannot_be_advertised() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        for wrong in ["224.0.0.251:5353", "[ff02::fb]:5353", "255.255.255.255", "::ffff:224.0.0.1"]
        {
            let error = advertised(Some(wrong), bound, &machine(&[])).expect_err(wrong);
            assert_eq!(
                error.to_string(),
                format!(
                    "the advertised address '{wrong}' is a multicast or broadcast address, which no \
                     connection can be made to: advertise an address of this machine, or leave it \
                     out"
                )
            );
        }
    }

    #[test]
    fn a_loopback_address_is_told_to_be_for_this_machine_alone() {
        let text = |asked: &str, bound: &str, address: &str, is_shared| {
            let bound = bound.parse().expect("an address");
            unreachable(asked, bound, address, is_shared)
        };
        let (loopback, wildcard) = ("127.0.0.1:3456", "0.0.0.0:3456");
        for (asked, port) in [("127.0.0.1:0", 0), ("localhost:0", 0), (loopback, 3456)] {
            let expected = format!(
                "callers on other machines cannot reach 127.0.0.1:3456: set \
                 MICRO_SERVER_ADDRESS=0.0.0.0:{port} to listen on every interface, and \
                 MICRO_SERVER_ADVERTISE where the address that leads here is another"
            );
            assert_eq!(text(asked, loopback, loopback, true), Some(expected), "{asked}");
        }
        assert_eq!(
            text(wildcard, wildcard, loopback, true).as_deref(),
            Some(
                "callers on other machines cannot reach 127.0.0.1:3456: set \
                 MICRO_SERVER_ADVERTISE to the address that leads here"
            ),
            "it listens on every interface already"
        );
        for bound in [loopback, wildcard] {
            assert_eq!(text(bound, bound, loopback, false), None, "nobody else finds it");
            assert_eq!(text(bound, bound, "greeter.local:3456", true), None);
        }
        for address in ["10.0.0.7:3456", "[fd00::7]:3456"] {
            assert_eq!(text(wildcard, "[::]:3456", address, true), None);
        }
    }

    #[test]
    fn what_is_advertised_and_what_is_listened_on_may_exclude_each_other() {
        for (asked, bound, advertised, remedy) in [
            ("127.0.0.1:0", "127.0.0.1:3456", "192.0.2.2:3456", Some("ADDRESS=0.0.0.0:0 ")),
            ("[::1]:9", "[::1]:9", "[fd00::7]:9", Some("ADDRESS=0.0.0.0:9 ")),
            ("192.0.2.2:0", "192.0.2.2:3456", "127.0.0.1:3456", Some("advertise 192.0.2.2:3456")),
            ("192.0.2.2:0", "192.0.2.2:3456", "[::1]:3456", Some("advertise 192.0.2.2:3456")),
            // A way from one to the other may well be there.
            ("192.0.2.2:0", "192.0.2.2:3456", "198.51.100.7:80", None),
            ("0.0.0.0:0", "0.0.0.0:3456", "127.0.0.1:3456", None),
            ("127.0.0.1:0", "127.0.0.1:3456", "localhost:3456", None),
            ("127.0.0.1:0", "127.0.0.1:3456", "127.0.0.2:3456", None),
        ] {
            // Nobody at all reaches it, whoever finds it.
            let text = unreachable(asked, bound.parse().expect("bound"), advertised, false);
            let Some(remedy) = remedy else {
                assert_eq!(text, None, "{bound} as {advertised}");
                continue;
            };
            let text = text.expect(bound);
            for part in [advertised, bound, remedy] {
                assert!(text.contains(part), "{text} should have {part}");
            }
        }
    }

    #[test]
    fn a_wildcard_stands_for_an_address_that_is_listened_on() {
        let both =
            ["127.0.0.1", "192.0.2.2", "::1", "fe80::1", "2001:db8::2", "fd00::2", "10.0.0.2"];
        let no_private = ["127.0.0.1", "::1", "2001:db8::2", "169.254.0.1", "192.0.2.2"];
        let public_and_private = ["127.0.0.1", "192.0.2.2", "::1", "fd00::2"];
        let loopback = ["127.0.0.1", "::1", "fe80::1"];
        let ipv6 = ["127.0.0.1", "::1", "fd00::2"];
        for (addresses, ipv4_only, dual, ipv6_only) in [
            (&both[..], "10.0.0.2", "10.0.0.2", "fd00::2"),
            (&no_private, "192.0.2.2", "192.0.2.2", "2001:db8::2"),
            (&public_and_private, "192.0.2.2", "fd00::2", "fd00::2"),
            (&ipv6, "127.0.0.1", "fd00::2", "fd00::2"),
            (&loopback, "127.0.0.1", "127.0.0.1", "::1"),
            (&[], "127.0.0.1", "127.0.0.1", "::1"),
        ] {
            for (bound, is_ipv6_apart, ip) in [
                ("0.0.0.0:3456", false, ipv4_only),
                ("[::ffff:0.0.0.0]:3456", false, ipv4_only),
                ("[::]:3456", false, dual),
                ("[::]:3456", true, ipv6_only),
            ] {
                let machine = Machine { is_ipv6_apart, ..machine(addresses) };
                let record = SocketAddr::new(ip.parse().expect("an address"), 3456).to_string();
                for advertise in [None, Some("0.0.0.0"), Some("[::]:3456")] {
                    let bound = bound.parse().expect("an address");
                    let advertised = advertised(advertise, bound, &machine).expect("valid");
                    assert_eq!(advertised, record, "{bound}, {advertise:?}, {machine:?}");
                }
            }
        }
    }

    #[test]
    fn an_advertised_wildcard_stands_for_the_bound_address() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        let record = advertised(Some("0.0.0.0:99"), bound, &machine(&["10.0.0.2"]));
        assert_eq!(record.expect("valid"), "127.0.0.1:99", "nothing listens on 10.0.0.2");
    }
}
