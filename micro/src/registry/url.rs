//! One parser for the URLs of all registries.

use std::{borrow::Cow, fmt};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::Error;

/// What would end an option's value in a name, or break the line that it stands in.
const NOT_IN_A_VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'`');

/// A registry's URL, taken apart: `scheme://[user[:password]@]host[:port],..[/path][?key=value&..]`.
///
/// It has no `Display` and its `Debug` is [`redacted`]: a password reaches no log.
pub(super) struct Url {
    /// In lower case.
    pub(super) scheme: String,
    /// User and password, percent-decoded.
    pub(super) user: Option<(String, String)>,
    /// What lies between the user and the path, as written.
    pub(super) hosts: String,
    /// Without its leading slash, as written.
    pub(super) path: String,
    /// Pairs in their order, decoded.
    pub(super) query: Vec<(String, String)>,
    redacted: String,
    written: String,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let redacted = redacted(url);
        let fail = |why: &str| Error::config(format!("registry URL `{redacted}`: {why}"));
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(fail("it has no scheme; write scheme://.., such as `memory://`"));
        };
        if !is_scheme(scheme) {
            return Err(fail("its scheme is not a word; write scheme://.., such as `memory://`"));
        }
        if rest.contains('#') {
            return Err(fail("it has a fragment; `#` within a user or password is written `%23`"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') || query.contains('@') && !authority.contains('@') {
            return Err(fail(
                "it has an `@` after the hosts; within a user or password `/` is written `%2F`, \
                 `?` `%3F` and `@` `%40`",
            ));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, hosts)) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                let decode = |text| {
                    percent_decode_str(text)
                        .decode_utf8()
                        .map_err(|_| fail("its user or password is not UTF-8 once percent-decoded"))
                };
                let user = decode(user)?.into_owned();
                if user.is_empty() {
                    return Err(fail("it has an `@` without a user before it"));
                }
                (Some((user, decode(password)?.into_owned())), hosts)
            }
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            hosts: hosts.to_owned(),
            path: path.to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            redacted,
            written: url.to_owned(),
        })
    }

    /// An error that names the URL, without its password, and the remedy.
    pub(super) fn error(&self, why: impl fmt::Display) -> Error {
        Error::config(format!("registry URL `{}`: {why}", self.redacted))
    }

    /// The hosts as `host:port`, each without a port given the default one.
    ///
    /// # Errors
    /// `Config` for an empty host, a port that is none, an IPv6 address without brackets.
    #[allow(dead_code, reason = "not every backend has hosts")]
    pub(super) fn addresses(&self, default_port: u16) -> Result<Vec<String>, Error> {
        let address = |host: &str| {
            if host.is_empty() {
                let scheme = &self.scheme;
                return Err(self.error(format_args!(
                    "a host is missing; write `{scheme}://127.0.0.1:{default_port}`"
                )));
            }
            let complete = match host_and_port(host) {
                Some((_, Some(_))) => host.to_owned(),
                Some((host, None)) => format!("{host}:{default_port}"),
                None => {
                    let host = redact_host(host);
                    return Err(self.error(format_args!(
                        "`{host}` is not `host:port`; an IPv6 address is written in brackets"
                    )));
                }
            };
            Ok(complete)
        };
        self.hosts.split(',').map(address).collect()
    }

    /// The registry's name: where it is, and those of the `telling` options, each with its default,
    /// that are given otherwise. Caches and metrics go by it, so that these are all that make another
    /// place of it; and logs have it, so that none of them may be a secret.
    #[allow(dead_code, reason = "not every backend has options")]
    pub(super) fn name(&self, place: impl fmt::Display, telling: &[(&str, &str)]) -> String {
        let mut name = place.to_string();
        let mut mark = '?';
        for (key, default) in telling {
            if let Some(value) = self.option(key).filter(|value| value != default) {
                let value = utf8_percent_encode(value, NOT_IN_A_VALUE);
                name.push_str(&format!("{mark}{key}={value}"));
                mark = '&';
            }
        }
        name
    }

    /// Refuses a user and password.
    pub(super) fn without_user(&self) -> Result<(), Error> {
        match &self.user {
            Some(_) => Err(self.error(format_args!("{}:// takes no user", self.scheme))),
            None => Ok(()),
        }
    }

    /// Refuses a path.
    pub(super) fn without_path(&self) -> Result<(), Error> {
        if self.path.is_empty() {
            return Ok(());
        }
        Err(self.error(format_args!("{}:// takes no path", self.scheme)))
    }

    /// Refuses every query key but these, and any that comes twice.
    pub(super) fn only_keys(&self, known: &[&str]) -> Result<(), Error> {
        for (index, (key, _)) in self.query.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                let remedy = match known {
                    [] => format!("{}:// takes none but cache and max_stale", self.scheme),
                    _ => format!(
                        "{}:// knows {}, cache and max_stale",
                        self.scheme,
                        known.join(", ")
                    ),
                };
                return Err(self.error(format_args!("unknown option `{key}`; {remedy}")));
            }
            if self.query[..index].iter().any(|(earlier, _)| earlier == key) {
                return Err(self.error(format_args!("option `{key}` is there twice")));
            }
        }
        Ok(())
    }

    /// As it was written, but for the options that were [taken](Self::take) out. With the password.
    pub(super) fn text(&self) -> String {
        let before = self.written.split('?').next().unwrap_or_default();
        if self.query.is_empty() {
            return before.to_owned();
        }
        let query =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        format!("{before}?{query}")
    }

    /// Takes a query key out, and returns its value.
    ///
    /// # Errors
    /// `Config` when it is there twice.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<String>, Error> {
        let mut values: Vec<_> =
            self.query.extract_if(.., |(name, _)| name == key).map(|(_, value)| value).collect();
        if values.len() > 1 {
            return Err(self.error(format_args!("option `{key}` is there twice")));
        }
        Ok(values.pop())
    }

    /// The value of a query key.
    #[allow(dead_code, reason = "not every backend has options")]
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Whether it is what goes before `://`.
pub(super) fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; none if it is no such thing.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            // A link-local one may name its interface, by number.
            let (ip, scope) = rest[..end - 2].split_once('%').unwrap_or((&rest[..end - 2], "0"));
            ip.parse::<std::net::Ipv6Addr>().ok()?;
            scope.parse::<u32>().ok()?;
            (&text[..end], text[end..].strip_prefix(':').or(text[end..].is_empty().then_some("-"))?)
        }
        None => text.split_once(':').unwrap_or((text, "-")),
    };
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.starts_with('[') && !host.chars().all(is_bare) {
        return None;
    }
    if port == "-" {
        return (text.len() == host.len()).then_some((host, None));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    port.parse().ok().filter(|port| *port != 0).map(|port| (host, Some(port)))
}

/// Whether an address, `host:port`, leads nowhere but to the machine it is used on.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = host_and_port(address).map_or(address, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    match ip {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// The URL for people: what may be a password is `***`, however malformed the rest is, and query
/// values are left out.
pub(crate) fn redacted(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        Some((user, rest)) => match user.find(':').or(user.to_ascii_lowercase().find("%3a")) {
            // Alone it may be a token, or a password whose user was forgotten.
            None => ("***@".to_owned(), rest),
            Some(end) => (format!("{}:***@", &user[..end]), rest),
        },
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?.."),
        None => (rest, ""),
    };
    let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let shown = redact_hosts(hosts);
    // Behind what may be a password with a `/` in it, the host being forgotten, a path is its rest.
    let has_port = |host: &str| host.split_once(':').is_some_and(|(_, port)| !port.is_empty());
    let path = if path.len() > 1 && hosts.split(',').any(has_port) { "/.." } else { path };
    format!("{scheme}{user}{shown}{path}{query}")
}

/// Hosts for people, also with services' names before them as `static://` has it: whatever follows
/// one that is not fit to be shown may belong to it.
pub(super) fn redact_hosts(hosts: &str) -> Cow<'_, str> {
    let mut end = 0;
    for host in hosts.split([',', ';', '=']) {
        if let Cow::Owned(redacted) = redact_host(host) {
            return format!("{}{redacted}", &hosts[..end]).into();
        }
        end += host.len() + 1;
    }
    hosts.into()
}

/// A host for people. Where its host was forgotten, or its `@` encoded, `user:password` is taken
/// for `host:port`: what cannot be a port may be a password.
fn redact_host(host: &str) -> Cow<'_, str> {
    let Some((start, port)) = host.split_once(':') else { return host.into() };
    let may_be_a_port =
        port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit() || "+-".contains(c));
    if may_be_a_port || host.starts_with('[') || host.parse::<std::net::Ipv6Addr>().is_ok() {
        return host.into();
    }
    format!("{start}:***").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Result<Vec<String>, String> {
        Url::parse(url).and_then(|url| url.addresses(2379)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_leads_to_this_machine_alone_is_told() {
        for address in
            ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"]
        {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["10.0.0.1:1", "[fd00::1]:1", "local.host:1", "0.0.0.0:1", "127.example:1"] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn a_name_has_the_options_that_tell_places_apart_in_one_order() {
        let telling = [("dc", ""), ("ns", ""), ("format", "micro")];
        for (query, name) in [
            ("", "x://h:1"),
            ("?token=s3cret&format=micro", "x://h:1"),
            ("?ns=b&token=s3cret&dc=a", "x://h:1?dc=a&ns=b"),
            ("?format=micro,kratos", "x://h:1?format=micro,kratos"),
            ("?dc=/a%20b%26ns%3Dc%0a%25", "x://h:1?dc=/a%20b%26ns=c%0A%25"),
        ] {
            let url = Url::parse(&format!("x://h{query}")).unwrap();
            assert_eq!(url.name("x://h:1", &telling), name);
        }
    }

    #[test]
    fn hosts_get_the_default_port() {
        assert_eq!(host_and_port("[fe80::1%3]:80"), Some(("[fe80::1%3]", Some(80))));
        for no_scope in ["[fe80::1%]:80", "[fe80::1%eth0]:80", "[fe80::1%3%4]:80", "[%3]:80"] {
            assert_eq!(host_and_port(no_scope), None, "{no_scope}");
        }
        let found = hosts("etcd://a,b.c:1,127.0.0.1,[::1],[::1]:2,under_score-d:65535").unwrap();
        let expected =
            ["a:2379", "b.c:1", "127.0.0.1:2379", "[::1]:2379", "[::1]:2", "under_score-d:65535"];
        assert_eq!(found, expected);
    }

    #[test]
    fn malformed_hosts_are_named_with_the_remedy() {
        for (url, named) in [
            ("etcd://", "a host is missing; write `etcd://127.0.0.1:2379`"),
            ("etcd://a,,b", "a host is missing"),
            ("etcd://a,", "a host is missing"),
            ("etcd://::1", "`::1` is not `host:port`; an IPv6 address is written in brackets"),
            ("etcd://[::1", "`[::1` is not"),
            ("etcd://[::1]2", "`[::1]2` is not"),
            ("etcd://[nonsense]:1", "`[nonsense]:1` is not"),
            ("etcd://[", "`[` is not"),
            ("etcd://a:", "`a:` is not"),
            ("etcd://a:-", "`a:-` is not"),
            ("etcd://a:0", "`a:0` is not"),
            ("etcd://a:+1", "`a:+1` is not"),
            ("etcd://a:65536", "`a:65536` is not"),
            ("etcd://:2379", "`:2379` is not"),
            ("etcd://a b", "`a b` is not"),
            ("etcd://http://a:2379", "`http:` is not"),
        ] {
            let error = hosts(url).unwrap_err();
            assert!(error.contains(named), "{url}: {error}");
            assert!(error.contains(&format!("`{url}`")), "{url} must be named: {error}");
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        let url = Url::parse("ETCD://ro%40ot:p%3A%2F%40ss:w@h:1/?a=b%20c&d=").unwrap();
        assert_eq!(url.scheme, "etcd");
        assert_eq!(url.user, Some(("ro@ot".to_owned(), "p:/@ss:w".to_owned())));
        assert_eq!((url.hosts.as_str(), url.path.as_str()), ("h:1", ""));
        assert_eq!(
            (url.option("a"), url.option("d"), url.option("e")),
            (Some("b c"), Some(""), None)
        );
    }

    #[test]
    fn no_error_and_no_debug_shows_a_password() {
        for url in [
            "etcd://root:hunter2@",
            "etcd://root:hunter2@a:b:c",
            "etcd://root:hun/ter2@a",
            "etcd://root:hun?ter2@a",
            "etcd://root:hun#ter2@a",
            "etcd://root:hunter2%ff@a",
            "etcd://:hunter2@a",
            "etcd://root:hunter2@a?tls=hunter2&b=hunter2",
            "root:hunter2@a",
            "hunter2@a",
            "et cd://root:hunter2@a",
            "etcd://root:hunter2",
            "etcd://root:hun/ter2",
            "etcd://root:12/ter2",
            "foo://root:hun/ter2",
            "root:hun/ter2",
            "etcd://root:hunter2%40127.0.0.1:2379",
            "etcd://root%3Ahunter2@127.0.0.1:1x",
            "etcd://a:1,root:hunter2/",
            "etcd://root:hun,ter2",
            "etcd://root:hunter2=b",
            "root:hunter2",
        ] {
            let texts = match Url::parse(url) {
                Err(error) => vec![error.to_string(), format!("{error:?}")],
                Ok(url) => {
                    let mut texts = vec![format!("{url:?}")];
                    texts.extend(url.addresses(1).err().map(|error| error.to_string()));
                    texts.extend(url.only_keys(&[]).err().map(|error| error.to_string()));
                    texts.extend(url.without_user().err().map(|error| error.to_string()));
                    texts
                }
            };
            for text in texts {
                assert!(!text.contains("hun") && !text.contains("ter2"), "{url}: {text}");
            }
        }
    }

    #[test]
    fn unknown_and_repeated_options_are_refused_by_name() {
        let url = Url::parse("etcd://a?tls=true&ttl=3").unwrap();
        let error = url.only_keys(&["tls", "ca"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "registry URL `etcd://a?..`: unknown option `ttl`; etcd:// knows tls, ca, cache and max_stale"
        );
        let url = Url::parse("etcd://a?tls=true&tls=true").unwrap();
        assert!(url.only_keys(&["tls"]).unwrap_err().to_string().contains("`tls` is there twice"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["etcd", "etcd:", "etcd:/a", "127.0.0.1:2379", "://a", "1a://b", "e d://a"] {
            let error = Url::parse(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("scheme"), "{error}");
        }
    }
}
