//! What is called: a Service, and which of its ports.

use std::fmt;

use k8s_openapi::api::discovery::v1::EndpointPort;

/// The longest value of a label, and with it a Service's name, in bytes.
const MAX_NAME: usize = 63;

/// What marks the port that speaks gRPC, where the call names none.
const GRPC: &str = "grpc";
const PROTOCOLS: [&str; 2] = [GRPC, "kubernetes.io/h2c"];

/// A Service by its name, and the port to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) service: String,
    pub(super) port: Option<Port>,
}

/// A port as one calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    /// That of the pods: a Service's own number is the virtual address's alone.
    Number(u16),
    Name(String),
}

impl Target {
    /// Reads `service` or `service:port`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(Port::parse(port)?)),
            None => (text, None),
        };
        if service.is_empty() {
            return Err("the service has no name".to_owned());
        }
        Ok(Self { service: service.to_owned(), port })
    }

    /// Whether a Service can have this name.
    ///
    /// # Errors
    /// Why none can.
    pub(super) fn check(&self) -> Result<(), String> {
        let name = &self.service;
        if is_label(name) {
            return Ok(());
        }
        Err(format!(
            "`{}` is no name that a Kubernetes Service can have: at most {MAX_NAME} of a-z, 0-9 and \
             `-`, at its ends no `-`; call the Service by its name",
            name.escape_debug()
        ))
    }

    /// The number of the port to call, of those that a slice has.
    ///
    /// # Errors
    /// Why it is not clear, and what there is.
    pub(super) fn resolve(&self, ports: &[EndpointPort]) -> Result<u16, String> {
        let is_tcp = |port: &&EndpointPort| {
            port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
        };
        let tcp: Vec<_> = ports.iter().filter(is_tcp).collect();
        let named = |name: &str| tcp.iter().find(|port| port.name.as_deref() == Some(name));
        let speaks = |port: &&&EndpointPort| {
            port.app_protocol.as_deref().is_some_and(|it| PROTOCOLS.contains(&it))
        };
        let found = match &self.port {
            // A slice without ports stands for all of them.
            Some(Port::Number(number)) if ports.is_empty() => return Ok(*number),
            Some(Port::Number(number)) => tcp.iter().find(|it| it.port == Some((*number).into())),
            Some(Port::Name(name)) => named(name),
            None => named(GRPC).or_else(|| tcp.iter().find(speaks)).or(match &tcp[..] {
                [only] => Some(only),
                _ => None,
            }),
        };
        let Some(port) = found else {
            let has = listed(&tcp);
            return Err(match &self.port {
                Some(port) => format!(
                    "no port {port}: the pods have {has} (a Service's own port number is not \
                     theirs: name the port, or give its targetPort)"
                ),
                None => format!(
                    "which port speaks gRPC is not clear: the pods have {has}; name it `grpc` in the \
                     Service, or call `{}:PORT`",
                    self.service
                ),
            });
        };
        match port.port.map(u16::try_from) {
            Some(Ok(number)) if number > 0 => Ok(number),
            _ => Err(format!("the port {} has no number", name_of(port))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Some(port) => write!(f, "{}:{port}", self.service),
            None => f.write_str(&self.service),
        }
    }
}

impl Port {
    fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(number) if number > 0 => Ok(Self::Number(number)),
                _ => Err(format!("`{text}` is no port: write one from 1 to 65535, or its name")),
            };
        }
        if is_label(text) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!("`{}` is no port: write its number or its name", text.escape_debug()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Whether it is a DNS label, as the names of namespaces, Services and ports are.
pub(super) fn is_label(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn name_of(port: &EndpointPort) -> &str {
    match port.name.as_deref() {
        None | Some("") => "without a name",
        Some(name) => name,
    }
}

/// `grpc=9000, metrics=9100`; `none`.
fn listed(ports: &[&EndpointPort]) -> String {
    /// Of the hundred that a slice may have.
    const MOST: usize = 10;
    if ports.is_empty() {
        return "none".to_owned();
    }
    let each = |port: &&EndpointPort| match (port.name.as_deref(), port.port) {
        (None | Some(""), Some(number)) => number.to_string(),
        (Some(name), Some(number)) => format!("{name}={number}"),
        (_, None) => name_of(port).to_owned(),
    };
    let shown: Vec<_> = ports.iter().take(MOST).map(each).collect();
    let rest = if ports.len() > MOST { ", .." } else { "" };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(short: &[&str]) -> Vec<EndpointPort> {
        let port = |short: &&str| {
            let (short, app_protocol) = match short.split_once('@') {
                Some((short, protocol)) => (short, Some(protocol.to_owned())),
                None => (*short, None),
            };
            let (name, number) = short.split_once('=').unwrap();
            let protocol = name.strip_suffix("/udp").map(|_| "UDP".to_owned());
            EndpointPort {
                name: Some(name.trim_end_matches("/udp").to_owned()),
                port: number.parse().ok(),
                protocol,
                app_protocol,
            }
        };
        short.iter().map(port).collect()
    }

    #[test]
    fn a_port_is_called_by_name_by_number_or_found() {
        for (target, of, expected) in [
            ("a", &["grpc=9000", "http=80"][..], Ok(9000)),
            ("a", &["http=80", "rpc=9000@grpc"], Ok(9000)),
            ("a", &["http=80", "rpc=9000@kubernetes.io/h2c"], Ok(9000)),
            ("a", &["x=1@grpc", "grpc=2"], Ok(2)),
            ("a", &["=9000"], Ok(9000)),
            ("a", &["http=80", "dns/udp=53"], Ok(80)),
            ("a", &["http=80", "metrics=90"], Err("http=80, metrics=90; name it `grpc`")),
            ("a", &[], Err("the pods have none")),
            ("a", &["grpc=-"], Err("the port grpc has no number")),
            ("a:http", &["grpc=9000", "http=80"], Ok(80)),
            ("a:80", &["grpc=9000", "http=80"], Ok(80)),
            ("a:80", &["grpc=9000"], Err("no port 80: the pods have grpc=9000 (")),
            ("a:dns", &["grpc=9000", "dns/udp=53"], Err("no port dns")),
            ("a:80", &[], Ok(80)),
            ("a:web", &[], Err("no port web: the pods have none")),
        ] {
            let found = Target::parse(target).unwrap().resolve(&ports(of));
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{target} {of:?}"),
                (Err(why), Err(said)) if why.contains(said) => {}
                _ => panic!("{target} {of:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_word() {
        for (target, said) in [
            ("", "has no name"),
            (":80", "has no name"),
            ("a:", "write one from 1 to 65535"),
            ("a:0", "write one from 1 to 65535"),
            ("a:65536", "write one from 1 to 65535"),
            ("a:b:c", "`b:c` is no port"),
        ] {
            let why = Target::parse(target).unwrap_err();
            assert!(why.contains(said), "{target}: {why}");
        }
        for name in ["Echo", "echo.v1", "a/b", "-a", "a-", &"a".repeat(64)] {
            let why = Target::parse(name).unwrap().check().unwrap_err();
            assert!(why.contains("can have"), "{why}");
        }
        for name in ["a", "a-1", "1a", &"a".repeat(63)] {
            Target::parse(name).unwrap().check().unwrap();
        }
        assert_eq!(Target::parse("a:grpc").unwrap().to_string(), "a:grpc");
    }
}
