//! Why there is no TLS connection: who refused what, and what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// What an IO error of a TLS connection is about, if it is about TLS.
fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a client has no connection, whose handshake has failed.
pub(super) fn of_client(error: &io::Error) -> String {
    match cause(error) {
        Some(Error::InvalidCertificate(reason)) => {
            format!("the client does not trust the node's certificate: {}", untrusted(reason))
        }
        Some(Error::AlertReceived(alert)) => refused_by_node(*alert),
        Some(Error::InvalidMessage(_)) => {
            "the node answered with something that is not TLS: leave \
             `ChannelOptions::tls` out for it, or give its server `Server::tls`"
                .to_owned()
        }
        Some(error) => error.to_string(),
        None if is_end(error) => {
            "the node closed the connection amid the handshake: see whether its server has \
             `Server::tls`, and its log at debug"
                .to_owned()
        }
        None => error.to_string(),
    }
}

/// What the node says against the client, if an error on a connection is of that kind. In TLS 1.3 a
/// client takes the handshake for done before the node has seen its certificate.
pub(super) fn of_client_later(error: &io::Error) -> Option<String> {
    match cause(error) {
        Some(Error::AlertReceived(alert)) => Some(refused_by_node(*alert)),
        _ => None,
    }
}

/// Why a server does not serve a peer.
pub(super) fn of_server(error: &io::Error) -> String {
    match cause(error) {
        Some(Error::AlertReceived(alert)) => {
            format!("the client refused this node's certificate, by the alert {alert:?}")
        }
        Some(Error::NoCertificatesPresented) => {
            "the client has no certificate, which is required".to_owned()
        }
        Some(Error::InvalidCertificate(reason)) => {
            format!("the client's certificate is refused: {reason}")
        }
        Some(Error::InvalidMessage(_)) => "the client does not speak TLS".to_owned(),
        Some(error) => error.to_string(),
        None if is_end(error) => "the client closed the connection".to_owned(),
        None => error.to_string(),
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn untrusted(reason: &CertificateError) -> String {
    use CertificateError as E;
    match reason {
        // The latter when the CA has a new key and no new name.
        E::UnknownIssuer | E::BadSignature => {
            "its issuer is unknown: give the certificate of the CA \
             that issued it to `ClientTls::ca_file`"
                .to_owned()
        }
        E::NotValidForNameContext { expected, presented } => {
            let presented = match &presented[..] {
                [] => "no name at all".to_owned(),
                names => names.iter().map(|it| unwrapped(it)).collect::<Vec<_>>().join(", "),
            };
            format!(
                "it is for {presented}, not for {}: issue one that has this among its subject \
                 alternative names, or give one that it has to `ClientTls::server_name`",
                expected.to_str()
            )
        }
        E::Expired | E::ExpiredContext { .. } => {
            format!("{reason}: the node needs a new one, or this machine's clock is wrong")
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            format!(
                "{reason}: this machine's clock is wrong, or the node has the new one too early"
            )
        }
        // A self-signed one, as `openssl req -x509` makes them.
        reason if reason.to_string().contains("CaUsedAsEndEntity") => {
            "it is a CA's own: have the CA issue one for the node".to_owned()
        }
        reason => reason.to_string(),
    }
}

/// A name that comes as `DnsName("a")`.
fn unwrapped(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

fn refused_by_node(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let why = match alert {
        A::CertificateRequired => {
            "it requires a certificate: give one to `ClientTls::identity_files`"
        }
        A::UnknownCA | A::DecryptError => {
            "it does not know the issuer of the client's certificate: give the certificate of the CA \
             that issued it to the node's `ServerTls::client_ca_file`"
        }
        A::CertificateExpired => "the client's certificate has expired",
        A::CertificateRevoked => "the client's certificate is revoked",
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate | A::AccessDenied => {
            "it does not accept the client's certificate; its log says more at debug"
        }
        A::NoApplicationProtocol => "it does not speak HTTP/2 over TLS (ALPN `h2`)",
        A::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3",
        A::HandshakeFailure => {
            "the two have no algorithms in common, or it requires a certificate: see whether the \
             client needs `ClientTls::identity_files`"
        }
        A::UnrecognisedName => "it does not know itself by that name: see `ClientTls::server_name`",
        _ => "its log says more at debug",
    };
    format!("the node refused the client, by the alert {alert:?}: {why}")
}
