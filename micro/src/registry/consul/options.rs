//! What the URL says of Consul.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderValue;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;

use super::super::{format::Format, url::Url};
use crate::Error;

const DEFAULT_PORT: u16 = 8500;

/// The formats that go fleets keep in Consul.
const FORMATS: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

/// The options that other nodes are found with, and their defaults.
const TELLING: [(&str, &str); 5] =
    [("dc", ""), ("ns", ""), ("partition", ""), ("connect", ""), ("format", "micro")];

/// The agent, what is asked of it, and with which rights. `Debug` shows no token.
#[derive(Clone)]
pub(super) struct Options {
    /// `consul://127.0.0.1:8500?dc=a`, with what is [`TELLING`].
    pub(super) name: String,
    pub(super) at: At,
    token: Option<Token>,
    /// The datacenter that is read; registered is with the agent, in its own.
    pub(super) dc: Option<String>,
    pub(super) near: Option<String>,
    /// Namespace and partition, as every request names them.
    pub(super) tenancy: Vec<(&'static str, String)>,
    /// Nodes take part in Consul's service mesh by themselves, and none but such are read.
    pub(super) is_connect: bool,
    pub(super) formats: Vec<Format>,
    tls: Option<Tls>,
}

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// `host:port`
    Address(String),
    Socket(PathBuf),
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    Given(String),
    /// Read anew for each request: tokens expire and get replaced while a service runs.
    File(String),
}

/// The files are read anew for each new set of connections: certificates get replaced, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tls {
    ca: Option<String>,
    identity: Option<(String, String)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, dc, near, tenancy, is_connect, formats, tls, .. } = self;
        f.debug_struct("Options")
            .field("name", name)
            .field("dc", dc)
            .field("near", near)
            .field("tenancy", tenancy)
            .field("is_connect", is_connect)
            .field("formats", formats)
            .field("tls", tls)
            .finish_non_exhaustive()
    }
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        if url.user.is_some() {
            return Err(url.error(
                "consul:// takes no user; a token is the option `token`, or `token_file` for a \
                 file that holds it",
            ));
        }
        url.only_keys(&[
            "token",
            "token_file",
            "dc",
            "near",
            "ns",
            "partition",
            "connect",
            "tls",
            "ca",
            "cert",
            "key",
            "format",
        ])?;
        let given = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` is empty"))),
            value => Ok(value.map(str::to_owned)),
        };
        let tenancy = ["ns", "partition"]
            .into_iter()
            .filter_map(|key| given(key).map(|value| value.map(|value| (key, value))).transpose());
        let at = At::of(url)?;
        let options = Self {
            name: match &at {
                At::Address(address) => url.name(format_args!("consul://{address}"), &TELLING),
                At::Socket(path) => url.name(format_args!("consul://{}", path.display()), &TELLING),
            },
            at,
            token: match (given("token")?, given("token_file")?) {
                (None, None) => None,
                (Some(token), None) => Some(Token::Given(token)),
                (None, Some(file)) => Some(Token::File(file)),
                _ => return Err(url.error("options `token` and `token_file` exclude each other")),
            },
            dc: given("dc")?,
            near: given("near")?,
            tenancy: tenancy.collect::<Result<_, _>>()?,
            is_connect: match url.option("connect") {
                None => false,
                Some("native") => true,
                Some(_) => return Err(url.error("option `connect` is `native` or left out")),
            },
            formats: Format::of(url, &FORMATS)?,
            tls: Tls::of(url)?,
        };
        // A file that is not there is an error at the start, not at the first use.
        options.token().and_then(|_| options.tls().map(drop)).map_err(|why| url.error(why))?;
        Ok(options)
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        let token = self.token.as_ref().map(|token| match token {
            Token::Given(token) => ("given", token),
            Token::File(file) => ("file", file),
        });
        format!("consul {self:?} {token:?} {:?}", self.at)
    }

    /// `http://127.0.0.1:8500`
    pub(super) fn base(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.at {
            At::Address(address) => format!("{scheme}://{address}"),
            At::Socket(_) => format!("{scheme}://localhost"),
        }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether it is read from a file, which may take as long as it likes.
    pub(super) fn has_token_file(&self) -> bool {
        matches!(self.token, Some(Token::File(_)))
    }

    /// The token as a header's value. May read a file.
    ///
    /// # Errors
    /// In words, without the token.
    pub(super) fn token(&self) -> Result<Option<HeaderValue>, String> {
        let (option, token) = match &self.token {
            None => return Ok(None),
            Some(Token::Given(token)) => ("token", token.clone()),
            Some(Token::File(file)) => ("token_file", read("token_file", file)?),
        };
        let value = HeaderValue::from_str(token.trim());
        let mut value = value.ok().filter(|value| !value.is_empty()).ok_or_else(|| {
            format!("option `{option}`: what it holds is no token, which is one line of ASCII")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How connections are secured. (Ours, also where they are not: reqwest would take the
    /// process's default provider of cryptography, and panic where there is none.) May read files.
    ///
    /// # Errors
    /// In words: a file that cannot be read, or holds something else.
    pub(super) fn tls(&self) -> Result<ClientConfig, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let Some(tls) = &self.tls else {
            return Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        };
        let config = match &tls.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("ca", ca)? {
                    let added = roots.add(root);
                    added.map_err(|error| format!("option `ca`: {ca} has no root: {error}"))?;
                }
                config.with_root_certificates(roots)
            }
            None => config.with_platform_verifier().map_err(|error| {
                format!("TLS: the system's roots cannot be used: {error}; name others with `ca`")
            })?,
        };
        let mut config = match &tls.identity {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let private = PrivateKeyDer::from_pem_slice(read("key", key)?.as_bytes())
                    .map_err(|error| format!("option `key`: {key} has no key in PEM: {error}"))?;
                config
                    .with_client_auth_cert(certificates("cert", cert)?, private)
                    .map_err(|error| format!("options `cert` and `key`: {error}"))?
            }
        };
        // Of a configuration that it is given reqwest asks for neither. Whatever stands before the
        // agent may not have the first.
        config.alpn_protocols = ["h2", "http/1.1"].map(Into::into).into();
        Ok(config)
    }
}

impl At {
    fn of(url: &Url) -> Result<Self, Error> {
        if url.hosts.is_empty() && !url.path.is_empty() {
            let path = percent_decode_str(&url.path).decode_utf8().map_err(|_| {
                url.error("the path of its socket is not UTF-8 once percent-decoded")
            })?;
            return Ok(Self::Socket(PathBuf::from(format!("/{path}"))));
        }
        url.without_path()?;
        match url.addresses(DEFAULT_PORT)?.as_slice() {
            [address] => Ok(Self::Address(address.clone())),
            _ => Err(url.error(
                "it names several agents; a node is registered with one, as a rule that on its own \
                 machine, which knows of all the others: name that one",
            )),
        }
    }
}

impl Tls {
    fn of(url: &Url) -> Result<Option<Self>, Error> {
        let file = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` names no file"))),
            file => Ok(file.map(str::to_owned)),
        };
        let tls = Self {
            ca: file("ca")?,
            identity: match (file("cert")?, file("key")?) {
                (Some(cert), Some(key)) => Some((cert, key)),
                (None, None) => None,
                _ => return Err(url.error("options `cert` and `key` go together")),
            },
        };
        match url.option("tls") {
            Some("true") => Ok(Some(tls)),
            None => Ok((tls != Self::default()).then_some(tls)),
            Some("false") if tls == Self::default() => Ok(None),
            Some("false") => {
                Err(url.error("`tls=false` contradicts the options `ca`, `cert` and `key`"))
            }
            Some(_) => Err(url.error("option `tls` is `true` or `false`")),
        }
    }
}

fn read(option: &str, file: &str) -> Result<String, String> {
    fs::read_to_string(file)
        .map_err(|error| format!("option `{option}`: cannot read {file}: {error}"))
}

fn certificates(option: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(option, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("option `{option}`: {file} has no certificate in PEM")),
        Err(error) => Err(format!("option `{option}`: {file} is not PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Result<Options, String> {
        Url::parse(url).and_then(|url| Options::of(&url)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_agent_is_named_by_address_or_socket() {
        for (url, name, base) in [
            ("consul://127.0.0.1", "consul://127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("consul://h:1?tls=true", "consul://h:1", "https://h:1"),
            ("consul://[::1]", "consul://[::1]:8500", "http://[::1]:8500"),
            ("consul:///run/a%20b.sock", "consul:///run/a b.sock", "http://localhost"),
            (
                "consul://h?token=s3cret&near=_agent&ns=n&dc=a",
                "consul://h:8500?dc=a&ns=n",
                "http://h:8500",
            ),
            (
                "consul://h?connect=native&format=kratos&partition=p",
                "consul://h:8500?partition=p&connect=native&format=kratos",
                "http://h:8500",
            ),
        ] {
            let options = options(url).unwrap();
            assert_eq!((options.name.as_str(), options.base().as_str()), (name, base));
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_remedy() {
        for (url, named) in [
            ("consul://", "a host is missing; write `consul://127.0.0.1:8500`"),
            ("consul://a,b", "names several agents"),
            ("consul://a/b", "takes no path"),
            ("consul://hunter2@a", "a token is the option `token`"),
            ("consul://a?token=", "option `token` is empty"),
            ("consul://a?dc=", "option `dc` is empty"),
            ("consul://a?ns=", "option `ns` is empty"),
            ("consul://a?token=hunter2&token_file=/x", "exclude each other"),
            ("consul://a?token_file=/nowhere/token", "cannot read /nowhere/token"),
            ("consul://a?token=hunter2%0ahunter2", "is no token"),
            ("consul://a?connect=proxy", "option `connect` is `native`"),
            ("consul://a?stale=true", "unknown option `stale`; consul:// knows token, token_file"),
            ("consul://a?format=etcd", "consul:// has micro, kratos, kitex"),
            ("consul://a?tls=maybe", "option `tls` is `true` or `false`"),
            ("consul://a?ca=/nowhere/ca.pem", "option `ca`: cannot read /nowhere/ca.pem"),
            ("consul://a?cert=/x", "`cert` and `key` go together"),
            ("consul://a?tls=false&ca=/x", "contradicts"),
        ] {
            let error = options(url).unwrap_err();
            assert!(error.contains(named), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_in_no_text_and_yet_tells_registries_apart() {
        let [one, other, none] =
            ["?token=hunter2", "?token=hunter3", ""].map(|it| options(&format!("consul://a{it}")));
        let (one, other, none) = (one.unwrap(), other.unwrap(), none.unwrap());
        assert!(!format!("{one:?} {:?}", one.token()).contains("hunter"));
        assert_eq!(one.token().unwrap().unwrap(), "hunter2");
        assert!(one.identity() != other.identity() && one.identity() != none.identity());
    }
}
