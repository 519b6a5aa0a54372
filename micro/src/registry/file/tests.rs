//! The URL, the refusals, and a file system that is not well. What it does with files is tested from
//! outside.

use super::*;
use crate::registry::url::Url;

fn open(url: &str) -> Result<Arc<dyn Registry>, Error> {
    File::open(&Url::parse(url)?)
}

#[test]
fn paths_are_relative_or_absolute() {
    let here = std::env::current_dir().unwrap();
    for (url, path) in [
        ("file://nodes.toml", here.join("nodes.toml")),
        ("file://./nodes.toml", here.join("nodes.toml")),
        ("file://conf/my%20nodes%40home.toml", here.join("conf/my nodes@home.toml")),
        ("file:///etc/micro/nodes.toml", "/etc/micro/nodes.toml".into()),
    ] {
        let registry = open(url).unwrap();
        assert_eq!(registry.name(), url);
        let shown = format!("{registry:?}");
        assert!(shown.contains(&format!("path: {path:?}")), "{shown}");
    }
    let (relative, absolute) =
        ("file://nodes.toml", format!("file://{}/nodes.toml", here.display()));
    let first = open(relative).unwrap();
    assert!(Arc::ptr_eq(&first, &open(&absolute).unwrap()), "one file is one registry");
}

#[test]
fn what_names_no_file_is_refused() {
    for (url, named) in [
        (
            "file://",
            "no file is named; write `file://nodes.toml`, or `file:///etc/micro/nodes.toml`",
        ),
        ("file:///", "no file is named"),
        ("file://me@a.toml", "takes no user"),
        ("file://a.toml?poll=1", "unknown option `poll`; file:// takes none"),
        ("file://%ff", "the path is not UTF-8"),
    ] {
        let error = open(url).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(named), "{url}: {error}");
    }
}

#[tokio::test]
async fn it_says_why_it_does_not_register() {
    let registry = open("file://nodes.toml").unwrap();
    let node = Node::new("a", "a-1", "b:2");
    let error = registry.register(&node, Duration::from_secs(15)).await.unwrap_err();
    assert!(error.is_unsupported());
    assert_eq!(
        error.to_string(),
        "file://nodes.toml: cannot register a-1 of service a: file:// only reads, its nodes are \
         those in the file; name the node there, or use another registry"
    );
    let renewed = registry.renew(&node, Lease(1)).await;
    assert!(matches!(renewed, Err(RenewError::Failed(error)) if error.is_unsupported()));
    assert!(registry.deregister(&node, Lease(1)).await.unwrap_err().is_unsupported());
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_file_system_that_does_not_answer_wait_no_longer_side_by_side() {
    let state = State { look: Some(tokio::spawn(future::pending())), ..State::default() };
    let (name, path) = ("file://nodes.toml".to_owned(), "nodes.toml".into());
    let file = File(Arc::new(Inner { name, path, state: Mutex::new(state) }));
    let began = Instant::now();
    for answer in future::join_all((0..20).map(|_| file.read("greeter"))).await {
        assert!(answer.unwrap_err().to_string().contains("no answer within 1s"));
    }
    assert!(began.elapsed() <= LOOK + Duration::from_millis(10), "{:?}", began.elapsed());
    let state = file.0.state.lock().await;
    assert!(!state.look.as_ref().unwrap().is_finished(), "it is the one question still");
}

#[cfg(unix)]
#[test]
fn a_file_written_just_now_with_an_old_time_is_read_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("nodes.toml");
    std::fs::write(&path, "a").unwrap();
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
    let found = disk::read(&path, None).unwrap();
    assert!(matches!(found, Found::Content(_, None)), "it may change once more in this tick");
}
