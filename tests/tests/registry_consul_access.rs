//! `consul://` with tokens, and over TLS.

use std::{fs, sync::Arc, time::Duration};

use micro::{
    discovery::{Discovery, Update},
    registry::{self, Node},
    testing::registry::Watching,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    consul::{Consul, Options},
    dead_link::DeadLink,
};
use tokio_stream::StreamExt as _;

const TTL: Duration = Duration::from_secs(60);
const ROOT: &str = "7e0b2a5e-52a5-4f0e-9a6b-0c5f0e5d1b11";

fn node(service: &str, id: &str) -> Node {
    Node::new(service, id, "127.0.0.1:1")
}

/// A Consul in which nobody may do anything without a token.
async fn guarded() -> Consul {
    let acl = format!(
        r#"acl {{ enabled = true default_policy = "deny"
           tokens {{ initial_management = "{ROOT}" agent = "{ROOT}" }} }}"#
    );
    let options = Options { token: Some(ROOT.to_owned()), ..Options::hcl(&acl) };
    Consul::start_with(options).await
}

/// A token with these rules.
async fn token(consul: &Consul, name: &str, rules: &str) -> (String, String) {
    let policy = json!({ "Name": name, "Rules": rules });
    consul.put("/v1/acl/policy", policy).await;
    let answer = consul.put("/v1/acl/token", json!({ "Policies": [{ "Name": name }] })).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let field = |key: &str| answer[key].as_str().unwrap().to_owned();
    (field("SecretID"), field("AccessorID"))
}

const GREETER: &str =
    r#"service "greeter" { policy = "write" } node_prefix "" { policy = "read" }"#;

#[tokio::test]
async fn a_token_may_what_its_policy_says() {
    let consul = guarded().await;
    let (greeter, _) = token(&consul, "greeter", GREETER).await;
    let registry = registry::open(&format!("{}?token={greeter}", consul.url())).unwrap();
    let lease = registry.register(&node("greeter", "a"), TTL).await.unwrap();
    registry.renew(&node("greeter", "a"), lease).await.unwrap();
    assert_eq!(registry.read("greeter").await.unwrap().entries.len(), 1);
    assert_eq!(registry.list().await.unwrap(), ["greeter"]);

    let error = registry.register(&node("other", "b"), TTL).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_registry() && text.contains("service:write") && text.contains("policy"),
        "{text}"
    );
    // Consul answers with 200 and an empty list.
    let error = registry.read("other").await.unwrap_err().to_string();
    assert!(error.contains(r#"service "other" { policy = "read" }"#), "{error}");
    let ended = Watching::after_revision(&registry, "other", 1).next_or_end().await.unwrap_err();
    assert!(format!("{ended:?}").contains("shows nothing"), "{ended:?}");
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.deregister(&node("greeter", "a"), lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-a"]);
    assert!(
        registry.read("greeter").await.unwrap().entries.is_empty(),
        "empty is no want of rights"
    );
}

#[tokio::test]
async fn who_may_not_read_is_never_told_that_there_is_nobody() {
    let consul = guarded().await;
    let root = registry::open(&format!("{}?token={ROOT}", consul.url())).unwrap();
    root.register(&node("greeter", "a"), TTL).await.unwrap();
    let nobody = registry::open(&consul.url()).unwrap();
    let error = nobody.read("greeter").await.unwrap_err().to_string();
    assert!(error.contains("shows nothing"), "{error}");
    let error = nobody.list().await.unwrap_err().to_string();
    assert!(error.contains(r#"service_prefix "" { policy = "read" }"#), "{error}");
    let error = nobody.register(&node("greeter", "b"), TTL).await.unwrap_err().to_string();
    assert!(error.contains("give a token with the option `token`"), "{error}");
    // The service may be read, and its nodes may not.
    let rules = r#"service_prefix "" { policy = "read" }"#;
    let (token, _) = token(&consul, "half", rules).await;
    let half = registry::open(&format!("{}?token={token}", consul.url())).unwrap();
    let error = half.read("greeter").await.unwrap_err().to_string();
    assert!(error.contains(r#"node_prefix "" { policy = "read" }"#), "{error}");
    // Without a right to read nodes the catalog does not show even one's own.
    let rules = r#"service_prefix "" { policy = "write" }"#;
    let (token, _) = self::token(&consul, "blind", rules).await;
    let blind = registry::open(&format!("{}?token={token}", consul.url())).unwrap();
    let error = blind.register(&node("greeter", "c"), TTL).await.unwrap_err().to_string();
    assert!(error.contains(r#"node_prefix "" { policy = "read" }"#), "{error}");
}

#[tokio::test]
async fn a_token_from_a_file_may_be_replaced() {
    let consul = guarded().await;
    let (first, accessor) = token(&consul, "first", GREETER).await;
    let (second, _) = token(&consul, "second", GREETER).await;
    let file = consul.file("token");
    fs::write(&file, format!("{first}\n")).unwrap();
    let url = format!("{}?token_file={}", consul.url(), file.display());
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("greeter", "a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;

    let path = format!("/v1/acl/token/{accessor}");
    let url = format!("http://{}{path}", consul.address());
    let delete = tests::consul::client().delete(url).header("x-consul-token", ROOT).send().await;
    assert!(delete.unwrap().status().is_success());
    let renewed = registry.renew(&node("greeter", "a"), lease).await.unwrap_err();
    let text = format!("{renewed:?}");
    assert!(text.contains("ACL not found") && text.contains("expired"), "{text}");
    assert!(!text.contains(&first) && !format!("{registry:?}").contains(&first), "{text}");

    fs::write(&file, &second).unwrap();
    registry.renew(&node("greeter", "a"), lease).await.expect("the token is read anew");
    registry.deregister(&node("greeter", "a"), lease).await.unwrap();
    // One that had begun under the old token: ended, or told.
    let told = watching.next_or_end().await;
    assert!(told.is_ok() || format!("{told:?}").contains("Disconnected"), "{told:?}");
}

/// An authority, and what it signed, as PEM files in a folder.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let certificates = Self { dir: TempDir::new().unwrap() };
        certificates.write("ca.pem", &authority.pem());
        for name in ["server", "client"] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            certificates.write(&format!("{name}.pem"), &certificate.pem());
            certificates.write(&format!("{name}.key"), &key.serialize_pem());
        }
        certificates
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Consul with the server's certificate, which may ask for ours.
    async fn consul(&self, asks: bool) -> Consul {
        let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| self.path(name));
        let tls = format!(
            r#"tls {{ https {{ ca_file = "{ca}" cert_file = "{cert}" key_file = "{key}"
               verify_incoming = {asks} }} }}"#
        );
        Consul::start_with(Options { tls: true, ..Options::hcl(&tls) }).await
    }
}

/// Served, the agent may still lack a leader for a moment.
async fn registers(url: &str) {
    let registry = registry::open(url).unwrap();
    let start = tokio::time::Instant::now();
    loop {
        match registry.register(&node("greeter", "a"), TTL).await {
            Ok(lease) => return registry.renew(&node("greeter", "a"), lease).await.unwrap(),
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn consul_is_spoken_to_over_tls() {
    let ours = Certificates::new();
    let consul = ours.consul(false).await;
    let url = format!("{}?ca={}", consul.url(), ours.path("ca.pem"));
    registers(&url).await;
    registers(&url.replace("127.0.0.1", "localhost")).await;
    let registry = registry::open(&url).unwrap();
    Watching::after_revision(&registry, "greeter", 1).events(1).await;

    let others = Certificates::new();
    for query in ["?tls=true".to_owned(), format!("?ca={}", others.path("ca.pem"))] {
        let registry = registry::open(&format!("{}{query}", consul.url())).unwrap();
        let error = registry.read("greeter").await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("certificate"), "{query}: {error}");
    }
    let plain = registry::open(&consul.url()).unwrap();
    assert!(plain.read("greeter").await.unwrap_err().is_registry());
}

/// An agent speaks HTTP/2 over TLS: a query that waits has a stream there, and not a connection.
#[tokio::test]
async fn over_tls_watches_share_their_connections() {
    const SERVICES: usize = 120;
    let ours = Certificates::new();
    let consul = ours.consul(false).await;
    let url = format!("{}?ca={}", consul.url(), ours.path("ca.pem"));
    registers(&url).await;
    let registry = registry::open(&url).unwrap();
    let discovery = Discovery::new(registry.clone());
    let mut followed: Vec<_> =
        (0..SERVICES).map(|n| discovery.subscribe(&format!("s-{n}"))).collect();
    for subscription in &mut followed {
        assert_eq!(subscription.next().await, Some(Update::Reset(vec![])));
    }
    // An answer that a busy machine owed for a second costs the connections their successors, and a query
    // that waits stays where it is until something changes.
    for round in 0..5 {
        for (n, subscription) in followed.iter_mut().enumerate() {
            let mut node = node(&format!("s-{n}"), &format!("n-{n}"));
            node.metadata.insert("round".to_owned(), round.to_string());
            registry.register(&node, TTL).await.unwrap();
            assert_eq!(subscription.next().await, Some(Update::Insert(Arc::new(node))));
        }
        if consul.connections() == 3 {
            break;
        }
    }
    // One for what is asked and answered, and one for every hundred watches.
    assert_eq!(consul.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_went_silent_is_left_with_all_that_is_on_it() {
    let ours = Certificates::new();
    let consul = ours.consul(false).await;
    let link = DeadLink::to(&consul.address()).await;
    let url = format!("consul://{}?ca={}", link.address, ours.path("ca.pem"));
    registers(&url).await;
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("greeter", "a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    // The second change has come by a query that waited, and so will what comes of the silence.
    for id in ["b", "c"] {
        registry.register(&node("greeter", id), TTL).await.unwrap();
        assert_eq!(watching.events(1).await, [format!("+{id}@127.0.0.1:1")]);
    }
    link.silence();
    let ended = watching.next_or_end().await;
    assert!(format!("{ended:?}").contains("Disconnected"), "{ended:?}");
    // What was there stays silent for good.
    link.mend();
    registry.renew(&node("greeter", "a"), lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.deregister(&node("greeter", "a"), lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-a"]);
}

#[tokio::test]
async fn consul_may_ask_for_our_certificate() {
    let ours = Certificates::new();
    let consul = ours.consul(true).await;
    let url = format!("{}?ca={}", consul.url(), ours.path("ca.pem"));
    let (client, key) = (ours.path("client.pem"), ours.path("client.key"));
    registers(&format!("{url}&cert={client}&key={key}")).await;
    let nameless = registry::open(&url).unwrap();
    assert!(nameless.read("greeter").await.unwrap_err().is_registry());
}

#[test]
fn files_that_hold_something_else_are_refused_at_the_start() {
    let ours = Certificates::new();
    ours.write("empty", "");
    let (ca, empty) = (ours.path("ca.pem"), ours.path("empty"));
    for (query, said) in [
        (format!("ca={empty}"), "has no certificate in PEM"),
        (format!("cert={ca}&key={empty}"), "has no key in PEM"),
        (format!("cert={empty}&key={}", ours.path("client.key")), "has no certificate in PEM"),
        (format!("token_file={empty}"), "is no token"),
    ] {
        let error = registry::open(&format!("consul://127.0.0.1:1?{query}")).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(said), "{query}: {error}");
    }
}
