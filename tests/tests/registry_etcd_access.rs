//! `etcd://` with a user and password, and over TLS.

use std::{fs, path::Path, time::Duration};

use etcd_client::{Client, ConnectOptions, GetOptions, Permission, PermissionType};
use micro::{
    registry::{self, Node, RenewError},
    testing::registry::Watching,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use tempfile::TempDir;
use tests::etcd::{Etcd, Options};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(60);

fn node(id: &str) -> Node {
    Node::new("greeter", id, "127.0.0.1:1")
}

/// An etcd that knows `root`, and `micro` with the password `p@ss/word?`, who may use go-micro's
/// keys. Its tokens last 2 s unless used.
async fn guarded() -> Etcd {
    // A token is cheap to come by on a busy machine.
    let flags = ["--auth-token-ttl", "2", "--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let etcd = Etcd::start_with(Options { flags, tls: false }).await;
    let mut client = etcd.client().await;
    client.user_add("root", "admin", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("micro").await.unwrap();
    let keys = Permission::new(PermissionType::Readwrite, "/micro/registry/").with_prefix();
    client.role_grant_permission("micro", keys).await.unwrap();
    client.user_add("micro", "p@ss/word?", None).await.unwrap();
    client.user_grant_role("micro", "micro").await.unwrap();
    client.auth_enable().await.unwrap();
    etcd
}

fn with_user(etcd: &Etcd, user: &str) -> String {
    format!("etcd://{user}@{}", etcd.address())
}

#[tokio::test]
async fn a_user_signs_in_and_again_when_the_token_is_no_longer_known() {
    let mut etcd = guarded().await;
    let registry = registry::open(&with_user(&etcd, "micro:p%40ss%2Fword%3F")).unwrap();
    assert_eq!(registry.name(), etcd.url(), "the name is without the user");
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();

    // Expired: each kind of exchange finds it out for itself.
    let expired = || sleep(Duration::from_secs(4));
    expired().await;
    registry.renew(&node("a"), lease).await.unwrap();
    expired().await;
    let mut watching = Watching::after_revision(&registry, "greeter", 1);
    assert_eq!(watching.events(1).await, ["+a@127.0.0.1:1"]);
    expired().await;
    let other = registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"], "a watch outlives its token");
    expired().await;
    registry.deregister(&node("b"), other).await.unwrap();
    expired().await;
    assert_eq!(registry.read("greeter").await.unwrap().entries.len(), 1);

    // Restarted: etcd has forgotten every token.
    etcd.restart().await;
    registry.renew(&node("a"), lease).await.unwrap();
    etcd.restart().await;
    let mut watching = Watching::after_revision(&registry, "greeter", 1);
    assert_eq!(watching.events(1).await, ["+a@127.0.0.1:1"]);
}

#[tokio::test]
async fn a_change_of_users_does_not_lock_out() {
    let etcd = guarded().await;
    let registry = registry::open(&with_user(&etcd, "micro:p%40ss%2Fword%3F")).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let root = ConnectOptions::new().with_user("root", "admin");
    let mut root = Client::connect([etcd.address()], Some(root)).await.unwrap();
    // Every such change makes the tokens given out before it old.
    root.user_add("someone", "else", None).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    root.user_delete("someone").await.unwrap();
    Watching::after_revision(&registry, "greeter", 1).events(1).await;
    registry.register(&node("b"), TTL).await.unwrap();
}

#[tokio::test]
async fn a_registration_that_is_refused_leaves_neither_a_lease_nor_a_part() {
    let etcd = guarded().await;
    let url = format!("{}?format=micro,kratos", with_user(&etcd, "micro:p%40ss%2Fword%3F"));
    let registry = registry::open(&url).unwrap();
    let error = registry.register(&node("a"), TTL).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    let root = ConnectOptions::new().with_user("root", "admin");
    let mut root = Client::connect([etcd.address()], Some(root)).await.unwrap();
    assert!(root.leases().await.unwrap().leases().is_empty(), "a lease is left");
    let all = GetOptions::new().with_all_keys();
    assert!(root.get("", Some(all)).await.unwrap().kvs().is_empty(), "a key is left");
}

/// As the nodes of a fleet whose constructors are `NewEtcdRegistryWithAuth` and
/// `NewEtcdResolverWithAuth`, and of one with `WithAuthOpt`.
#[tokio::test]
async fn with_a_password_a_kitex_node_is_where_either_of_kitexs_constructors_looks() {
    let etcd = guarded().await;
    let root = ConnectOptions::new().with_user("root", "admin");
    let mut root = Client::connect([etcd.address()], Some(root)).await.unwrap();
    let url = format!("{}?format=kitex", with_user(&etcd, "micro:p%40ss%2Fword%3F"));
    let registry = registry::open(&url).unwrap();
    for prefix in ["kitex/registry-etcd/", "/greeter/"] {
        let error = registry.register(&node("a"), TTL).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        let keys = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        root.role_grant_permission("micro", keys).await.unwrap();
    }
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let value = r#"{"network":"tcp","address":"127.0.0.1:1","weight":10,"tags":null}"#;
    let all = || GetOptions::new().with_all_keys();
    let written = root.get("", Some(all())).await.unwrap();
    let written: Vec<_> =
        written.kvs().iter().map(|kv| (kv.key_str().unwrap(), kv.value_str().unwrap())).collect();
    let keys = ["/greeter/127.0.0.1:1", "kitex/registry-etcd/greeter/127.0.0.1:1"];
    assert_eq!(written, keys.map(|key| (key, value)));

    registry.renew(&node("a"), lease).await.unwrap();
    root.delete(keys[0], None).await.unwrap();
    assert!(matches!(registry.renew(&node("a"), lease).await, Err(RenewError::Lost(_))));
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(registry.read("greeter").await.unwrap().entries.len(), 2, "of one node");
    registry.deregister(&node("a"), lease).await.unwrap();
    assert!(root.get("", Some(all())).await.unwrap().kvs().is_empty());
}

#[tokio::test]
async fn who_may_not_is_told_so_without_the_password() {
    let etcd = guarded().await;
    for (user, said) in [
        ("micro:hunter2", "authentication failed"),
        ("hunter2:hunter2", "authentication failed"),
        ("micro", "authentication failed"),
    ] {
        let registry = registry::open(&with_user(&etcd, user)).unwrap();
        let error = registry.register(&node("a"), TTL).await.unwrap_err();
        let text = format!("{error} {error:?} {registry:?}");
        assert!(text.contains(said), "{text}");
        assert!(!text.replace("Some(\"hunter2\")", "").contains("hunter2"), "{text}");
    }
    let registry = registry::open(&etcd.url()).unwrap();
    let error = registry.read("greeter").await.unwrap_err();
    assert!(error.to_string().contains("user name is empty"), "{error}");
    let error = Watching::after_revision(&registry, "greeter", 1).next_or_end().await.unwrap_err();
    assert!(format!("{error:?}").contains("user name is empty"), "{error:?}");
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
        Path::new(self.dir.path()).join(name).display().to_string()
    }
}

#[tokio::test]
async fn etcd_is_spoken_to_over_tls() {
    let ours = Certificates::new();
    let flags = ["--cert-file", &ours.path("server.pem"), "--key-file", &ours.path("server.key")];
    let flags = flags.map(str::to_owned).to_vec();
    let etcd = Etcd::start_with(Options { flags, tls: true }).await;
    let url = format!("{}?ca={}", etcd.url(), ours.path("ca.pem"));
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    Watching::after_revision(&registry, "greeter", 1).events(1).await;

    let by_name = url.replace("127.0.0.1", "localhost");
    assert_eq!(registry::open(&by_name).unwrap().read("greeter").await.unwrap().entries.len(), 1);

    let others = Certificates::new();
    for (query, said) in [
        // Signed by nobody that the system knows, or by another.
        ("?tls=true".to_owned(), "certificate"),
        (format!("?ca={}", others.path("ca.pem")), "certificate"),
    ] {
        let registry = registry::open(&format!("{}{query}", etcd.url())).unwrap();
        let error = registry.read("greeter").await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains(said), "{query}: {error}");
    }
    let plain = registry::open(&etcd.url()).unwrap();
    assert!(plain.read("greeter").await.unwrap_err().is_registry());
}

#[tokio::test]
async fn etcd_may_ask_for_our_certificate() {
    let ours = Certificates::new();
    let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| ours.path(name));
    let flags =
        ["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &ca];
    let flags = flags.map(str::to_owned).to_vec();
    let etcd = Etcd::start_with(Options { flags, tls: true }).await;
    let url = format!("{}?ca={ca}", etcd.url());
    let (client, client_key) = (ours.path("client.pem"), ours.path("client.key"));
    let registry = registry::open(&format!("{url}&cert={client}&key={client_key}")).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    let nameless = registry::open(&url).unwrap();
    assert!(nameless.read("greeter").await.unwrap_err().is_registry());
}

#[test]
fn what_cannot_be_used_of_tls_is_refused_at_the_start() {
    let ours = Certificates::new();
    let ca = ours.path("ca.pem");
    for (query, said) in [
        ("tls=yes".to_owned(), "option `tls` is `true` or `false`"),
        (format!("tls=false&ca={ca}"), "contradicts"),
        ("ca=".to_owned(), "option `ca` names no file"),
        ("ca=/nowhere/ca.pem".to_owned(), "option `ca`: cannot read /nowhere/ca.pem"),
        (format!("cert={ca}"), "`cert` and `key` go together"),
        (format!("key={ca}"), "`cert` and `key` go together"),
        ("insecure=true".to_owned(), "unknown option `insecure`; etcd:// knows tls, ca, cert, key"),
    ] {
        let error = registry::open(&format!("etcd://127.0.0.1:1?{query}")).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(said), "{query}: {error}");
    }
}
