//! What the URL says of NATS.

use std::{fmt, fs, path::PathBuf, time::Duration};

use async_nats::{ConnectOptions, rustls::crypto::CryptoProvider};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::url::{Url, is_loopback};
use crate::Error;

const DEFAULT_PORT: u16 = 4222;

/// A PING this often on a connection on which nothing comes, which is given up when the third goes
/// out before any was answered.
const PING_EVERY: Duration = Duration::from_secs(3);

/// Messages that may wait for us to take them in. What comes while we do not run waits in the kernel;
/// a turn of ours takes 8 MiB of it at most, twelve thousand usual records.
const WAITING: usize = 16 * 1024;

/// Servers, credentials and TLS of a registry. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Options {
    /// `nats://h1:4222,h2:4222`, and a user or file of `creds`.
    pub(super) name: String,
    /// `host:port` of each server.
    pub(super) servers: Vec<String>,
    auth: Auth,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    None,
    Password(String, String),
    Token(String),
    /// Of a JWT and its key.
    File(String),
}

/// The files are read anew for each connection: certificates get replaced while a service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tls {
    ca: Option<String>,
    identity: Option<(String, String)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).field("tls", &self.tls).finish()
    }
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        url.without_path()?;
        url.only_keys(&["tls", "ca", "cert", "key", "creds"])?;
        let servers = url.addresses(DEFAULT_PORT)?;
        let file = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` names no file"))),
            Some(file) => match fs::read(file) {
                // At the start, not at the first use.
                Err(error) => {
                    Err(url.error(format_args!("option `{key}`: cannot read {file}: {error}")))
                }
                Ok(_) => Ok(Some(file.to_owned())),
            },
            None => Ok(None),
        };
        let tls = Tls {
            ca: file("ca")?,
            identity: match (file("cert")?, file("key")?) {
                (Some(cert), Some(key)) => Some((cert, key)),
                (None, None) => None,
                _ => return Err(url.error("options `cert` and `key` go together")),
            },
        };
        let tls = match url.option("tls") {
            Some("true") => Some(tls),
            None => (tls != Tls::default()).then_some(tls),
            Some("false") if tls == Tls::default() => None,
            Some("false") => {
                return Err(url.error("`tls=false` contradicts the options `ca`, `cert` and `key`"));
            }
            Some(_) => return Err(url.error("option `tls` is `true` or `false`")),
        };
        let auth = match (&url.user, file("creds")?) {
            (None, None) => Auth::None,
            (None, Some(file)) => Auth::File(file),
            (Some((token, password)), None) if password.is_empty() => Auth::Token(token.clone()),
            (Some((user, password)), None) => Auth::Password(user.clone(), password.clone()),
            (Some(_), Some(_)) => {
                return Err(
                    url.error("a user and option `creds` are two credentials; leave one out")
                );
            }
        };
        // One of another account hears and is heard by others, on the same server.
        let user = match &auth {
            Auth::Password(user, _) => format!("{}@", utf8_percent_encode(user, NON_ALPHANUMERIC)),
            _ => String::new(),
        };
        let name = url.name(format_args!("nats://{user}{}", servers.join(",")), &[("creds", "")]);
        let options = Self { name, servers, auth, tls };
        options.client().map_err(|why| url.error(why))?;
        Ok(options)
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        format!("nats {:?}", (&self.servers, &self.auth, &self.tls))
    }

    /// Whether all servers are on this machine.
    pub(super) fn are_local(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(server))
    }

    /// How the client is to behave on a connection of ours.
    ///
    /// # Errors
    /// For credentials that cannot be read.
    pub(super) fn client(&self) -> Result<ConnectOptions, String> {
        let options = ConnectOptions::new()
            .name("micro")
            .ping_interval(PING_EVERY)
            .subscription_capacity(WAITING)
            // A broken connection is given up, and another one is ours to make. The client would
            // join the two without a word of what was missed between; zero stands for no limit.
            .max_reconnects(1)
            .ignore_discovered_servers();
        let options = match &self.auth {
            Auth::None => options,
            Auth::Password(user, password) => {
                options.user_and_password(user.clone(), password.clone())
            }
            Auth::Token(token) => options.token(token.clone()),
            Auth::File(file) => {
                let read = fs::read_to_string(file)
                    .map_err(|error| format!("option `creds`: cannot read {file}: {error}"))?;
                // Its error may quote the file.
                options.credentials(&read).map_err(|_| {
                    format!(
                        "option `creds`: {file} holds no user's JWT and key, as `nsc` writes them"
                    )
                })?
            }
        };
        let Some(tls) = &self.tls else { return Ok(options) };
        // The client takes the process's provider of cryptography, and panics where it finds none and
        // may choose among several.
        if CryptoProvider::get_default().is_none() {
            let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        }
        let options = options.require_tls(true);
        let options = match &tls.ca {
            Some(ca) => options.add_root_certificates(PathBuf::from(ca)),
            None => options,
        };
        Ok(match &tls.identity {
            Some((cert, key)) => options.add_client_certificate(cert.into(), key.into()),
            None => options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_user_whose_account_it_is_and_no_secret() {
        for (url, name) in [
            ("nats://h", "nats://h:4222"),
            ("nats://me:s3cret@h,i:1", "nats://me@h:4222,i:1"),
            ("nats://s3cret@h", "nats://h:4222"),
            ("nats://a%40b:s3cret@h", "nats://a%40b@h:4222"),
        ] {
            assert_eq!(Options::of(&Url::parse(url).unwrap()).unwrap().name, name);
        }
    }
}
