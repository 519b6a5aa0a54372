//! What the URL says: whom to ask, and for which name.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::rr::Name;

use super::super::url::{Url, redact_hosts};
use crate::{Error, near};

/// What a service's name is put in place of.
const SERVICE: &str = "{service}";

/// What SRV records are looked for under, where the name is no SRV name itself: gRPC over TCP.
const SRV: &str = "_grpc._tcp.";

/// Where DNS servers listen.
const PORT: u16 = 53;

#[derive(Debug)]
pub(super) struct Target {
    /// The URL, for people.
    pub(super) name: String,
    /// The servers to ask; none for the system's.
    pub(super) servers: Vec<SocketAddr>,
    template: String,
    port: Option<u16>,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// A and AAAA records; the port is known.
    Addresses(Name, u16),
    /// SRV records, which have ports.
    Services(Name),
}

impl Target {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        url.without_user()?;
        url.only_keys(&[])?;
        let (servers, target) = match (url.hosts.as_str(), url.path.as_str()) {
            (target, "") => ("", target),
            (servers, target) => (servers, target),
        };
        let name = match servers {
            "" => format!("dns://{target}"),
            _ => format!("dns://{servers}/{target}"),
        };
        let servers = match servers {
            "" => Vec::new(),
            _ => url.addresses(PORT)?,
        };
        let server = |address: String| {
            address.parse().map_err(|_| {
                url.error(format_args!(
                    "the DNS server `{}` is no IP address; write one, as in \
                     `dns://127.0.0.1:53/greeter.example:50051`",
                    redact_hosts(&address)
                ))
            })
        };
        let servers = servers.into_iter().map(server).collect::<Result<_, _>>()?;
        let (template, port) = match target.rsplit_once(':') {
            None => (target, None),
            Some((template, port)) => (template, Some(port)),
        };
        let shown = redact_hosts(target);
        let fail = |why: &str| {
            Err(url.error(format_args!(
                "`{shown}` {why}; write `name:port`, as in `dns://greeter.example:50051`, or \
                 `dns://{SERVICE}.example:50051`"
            )))
        };
        let port = match port {
            None => None,
            Some(text) if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return fail("has no port after its colon");
            }
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => return fail("has no port after its colon"),
                Ok(port) => Some(port),
            },
        };
        let is_address = template.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address {
            return Err(url.error(format_args!(
                "`{shown}` is an address, of which there is nothing to ask; write \
                 `static://greeter={shown}`"
            )));
        }
        let target = Self { name, servers, template: template.to_owned(), port };
        if target.name_for("service").is_none() {
            return fail("has no DNS name");
        }
        if template.starts_with('_') && port.is_some() {
            return Err(url.error(format_args!(
                "`{shown}` names SRV records, which have the port themselves; leave it out"
            )));
        }
        Ok(target)
    }

    /// The registry's identity: what else is written so is the same.
    pub(super) fn identity(&self) -> String {
        let Self { servers, template, port, .. } = self;
        format!("dns://{servers:?}/{template}:{port:?}")
    }

    /// What to ask for the nodes of a service.
    ///
    /// # Errors
    /// `Config` for a service whose name has no place in DNS.
    pub(super) fn question(&self, service: &str) -> Result<Question, Error> {
        let Some(name) = self.name_for(service) else {
            let (url, service) = (&self.name, near::clip(service).escape_debug());
            return Err(Error::config(format!(
                "{url}: the name of service {service} makes no DNS name: that has letters, digits, \
                 `-`, `_` and dots, 63 bytes between two of them and 253 in all"
            )));
        };
        Ok(match self.port {
            Some(port) => Question::Addresses(name, port),
            None => Question::Services(name),
        })
    }

    fn name_for(&self, service: &str) -> Option<Name> {
        let name = self.template.replace(SERVICE, service);
        let prefix = if self.port.is_some() || name.starts_with('_') { "" } else { SRV };
        let name = format!("{prefix}{name}");
        let is_plain =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let name = Name::from_ascii(&name).ok().filter(|_| is_plain)?;
        (!name.is_root() && name.num_labels() > u8::from(!prefix.is_empty()) * 2).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, Error> {
        Target::of(&Url::parse(url)?)
    }

    #[test]
    fn the_url_says_whom_to_ask_for_what() {
        for (url, servers, question) in [
            ("dns://greeter.example:50051", "", "greeter.example:50051"),
            ("dns:///greeter.example:50051", "", "greeter.example:50051"),
            ("dns://127.0.0.1/greeter:1", "127.0.0.1:53", "greeter:1"),
            ("dns://127.0.0.1:5353/greeter.:1", "127.0.0.1:5353", "greeter.:1"),
            ("dns://[::1]:5353,10.0.0.1/a.b:1", "[::1]:5353 10.0.0.1:53", "a.b:1"),
            ("dns://{service}.ns.svc:1", "", "pay.ns.svc:1"),
            ("dns://{service}:1", "", "pay:1"),
            ("dns://greeter.example", "", "SRV _grpc._tcp.greeter.example"),
            ("dns://{service}.example", "", "SRV _grpc._tcp.pay.example"),
            ("dns://_x._tcp.a.example", "", "SRV _x._tcp.a.example"),
            ("dns://_{service}._tcp.example", "", "SRV _pay._tcp.example"),
        ] {
            let target = target(url).unwrap();
            let asked: Vec<_> = target.servers.iter().map(SocketAddr::to_string).collect();
            assert_eq!(asked.join(" "), servers, "{url}");
            let asked = match target.question("pay").unwrap() {
                Question::Addresses(name, port) => format!("{name}:{port}"),
                Question::Services(name) => format!("SRV {name}"),
            };
            assert_eq!(asked, question, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_the_remedy() {
        let long = format!("dns://{}:1", "a".repeat(64));
        for (url, named) in [
            (
                "dns://",
                "`` has no DNS name; write `name:port`, as in `dns://greeter.example:50051`, or `dns://{service}.example:50051`",
            ),
            ("dns://:1", "`:1` has no DNS name"),
            ("dns://greeter:", "`greeter:` has no port after its colon"),
            ("dns://greeter:0", "`greeter:0` has no port after its colon"),
            ("dns://greeter:65536", "has no port after its colon"),
            ("dns://greeter:+1", "has no port after its colon"),
            ("dns://greeter:root", "`greeter:***` has no port"),
            ("dns://a..b:1", "has no DNS name"),
            ("dns://a b:1", "has no DNS name"),
            ("dns://{servic}:1", "has no DNS name"),
            ("dns://\u{e9}:1", "has no DNS name"),
            (&long, "has no DNS name"),
            (
                "dns://10.0.0.1:1",
                "`10.0.0.1:1` is an address, of which there is nothing to ask; write `static://greeter=10.0.0.1:1`",
            ),
            ("dns://[::1]:1", "is an address"),
            (
                "dns://_grpc._tcp.a:1",
                "names SRV records, which have the port themselves; leave it out",
            ),
            (
                "dns://ns.local/a:1",
                "the DNS server `ns.local:53` is no IP address; write one, as in `dns://127.0.0.1:53/greeter.example:50051`",
            ),
            ("dns://127.0.0.1:x/a:1", "is not `host:port`"),
            ("dns://127.0.0.1/a/b:1", "`a/b:1` has no DNS name"),
            ("dns://me@a:1", "takes no user"),
            ("dns://a:1?b=c", "unknown option `b`; dns:// takes none"),
        ] {
            let error = target(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(named), "{url}: {error}");
        }
        for url in ["dns://root:s3cret", "dns://root:s3cret/a:1"] {
            let error = target(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_service_that_makes_no_name_is_refused_by_its_name() {
        let target = target("dns://{service}.example:1").unwrap();
        let long = "a".repeat(64);
        for service in ["", "team/pay", "a b", ".", "a..b", &long, "{service}", "x\n"] {
            let error = target.question(service).unwrap_err();
            assert!(
                error.is_config() && error.to_string().contains("makes no DNS name"),
                "{error}"
            );
        }
        assert!(target.question("team.pay_1").is_ok());
    }
}
