//! Which address a node puts into its record.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::Error;

/// The address for the record: `advertise` if given, with the bound port where it names none or
/// port 0; else the bound address. Where either is a wildcard, the first private address of this
/// machine instead (as go-micro does), or loopback if there is none.
pub(super) fn advertised(advertise: Option<&str>, bound: SocketAddr) -> Result<String, Error> {
    let Some(advertise) = advertise else {
        return Ok(SocketAddr::new(reachable(bound.ip()), bound.port()).to_string());
    };
    let (host, port) = split(advertise).ok_or_else(|| {
        Error::config(format!(
            "the advertised address '{advertise}' is not of the form host:port, host or [ipv6]:port"
        ))
    })?;
    let port = if port == 0 { bound.port() } else { port };
    Ok(match host.parse() {
        Ok(ip) => SocketAddr::new(reachable(ip), port).to_string(),
        Err(_) => format!("{host}:{port}"),
    })
}

/// The address itself, or one of this machine's for a wildcard.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { private_ip() } else { ip }
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
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    is_host.then_some((host, port))
}

fn private_ip() -> IpAddr {
    let addresses = if_addrs::get_if_addrs().unwrap_or_default();
    addresses
        .iter()
        .map(if_addrs::Interface::ip)
        .find(|ip| match ip {
            IpAddr::V4(ip) => ip.is_private(),
            IpAddr::V6(ip) => ip.is_unique_local(),
        })
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(advertised(advertise, bound).expect("valid"), record);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let bound = "127.0.0.1:3456".parse().expect("an address");
        for wrong in ["", ":80", "host:port", "host:99999", "http://host", "[::1", "a b:1"] {
            let error = advertised(Some(wrong), bound).expect_err(wrong);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_wildcard_is_never_advertised() {
        for bound in ["0.0.0.0:3456", "[::]:3456"] {
            for advertise in [None, Some("0.0.0.0"), Some("[::]:3456")] {
                let record = advertised(advertise, bound.parse().expect("an address"));
                let record: SocketAddr =
                    record.expect("an address").parse().expect("an IP address");
                assert!(!record.ip().is_unspecified(), "{record}");
                assert_eq!(record.port(), 3456);
            }
        }
    }
}
