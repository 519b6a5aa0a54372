//! What is told of service configs that cannot be used.

use micro::{ChannelOptions, registry::Node};
use tokio::time::sleep;

use crate::{SECOND, collected::Collected, echo::client};

/// How many there were from this source.
fn refused(target: &str, source: &str) -> Option<f64> {
    Collected::with("grpc.target", target)
        .get("micro.client.refused_service_configs", &[("micro.config.source", source)])
}

/// Lets time pass until this is told; its looks at a file are the time's.
async fn told(target: &str, source: &str, count: f64) {
    for _ in 0..20 {
        sleep(SECOND).await;
        if refused(target, source) == Some(count) {
            return;
        }
    }
    panic!("{source} has {:?} and not {count}", refused(target, source));
}

#[tokio::test(start_paused = true)]
async fn a_watched_file_that_cannot_be_used_is_told_once_a_change() {
    Collected::now();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let write = |text: &str| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
    };
    write("{}");
    let options = ChannelOptions::new().service_config_file(&path);
    let client = client("watched-config").for_all(options).build().unwrap();
    let _channel = client.channel("watched-config");
    sleep(10 * SECOND).await;
    assert_eq!(refused("watched-config", "file"), None, "it is well");
    write("nonsense");
    told("watched-config", "file", 1.0).await;
    sleep(10 * SECOND).await;
    assert_eq!(refused("watched-config", "file"), Some(1.0), "it has not changed");
    std::fs::remove_file(&path).unwrap();
    told("watched-config", "file", 2.0).await;
    write("{}");
    sleep(10 * SECOND).await;
    assert_eq!(refused("watched-config", "file"), Some(2.0), "it is well again");
}

#[tokio::test(start_paused = true)]
async fn what_nodes_advertise_and_cannot_be_used_is_told_once_a_text() {
    const NAME: &str = "advertised-config";
    Collected::now();
    let registry = micro::registry::open(&format!("memory://{NAME}")).unwrap();
    let client = client(NAME).build().unwrap();
    let _channel = client.channel(NAME);
    let register = async |id: &str, text: &str| {
        let mut node = Node::new(NAME, id, "127.0.0.1:1");
        node.metadata.insert("service_config".to_owned(), text.to_owned());
        registry.register(&node, 3600 * SECOND).await.unwrap();
    };
    register("1", "nonsense").await;
    told(NAME, "registry", 1.0).await;
    register("2", "nonsense").await;
    sleep(10 * SECOND).await;
    assert_eq!(refused(NAME, "registry"), Some(1.0), "the same");
    for id in ["1", "2"] {
        register(id, "other nonsense").await;
    }
    told(NAME, "registry", 2.0).await;
}
