use std::{
    error::Error as _,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing::Level;

use super::nodes;
use crate::{
    ErrorKind, Service, ServiceBuilder,
    fixture::{Echo, Log, Stub, Word, client, register, registered},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What happened, in order.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<&'static str>>>);

impl Story {
    fn tell(&self, what: &'static str) {
        self.0.lock().expect("not poisoned").push(what);
    }

    fn told(&self) -> Vec<&'static str> {
        self.0.lock().expect("not poisoned").clone()
    }

    fn hook(&self, what: &'static str) -> impl FnOnce() -> Told + use<> {
        let story = self.clone();
        move || {
            story.tell(what);
            std::future::ready(Ok(()))
        }
    }
}

type Told = std::future::Ready<Result<(), Failure>>;

fn failing(text: &'static str) -> impl FnOnce() -> Told {
    move || std::future::ready(Err(text.into()))
}

fn builder(registry: &str) -> ServiceBuilder {
    Service::builder("greeter").registry(registry)
}

#[tokio::test]
async fn hooks_run_in_order_around_the_service() {
    let registry = "memory://hooks-order";
    let story = Story::default();
    let (at_start, at_stop) = (story.clone(), story.clone());
    let builder = builder(registry)
        .before_start(move || async move {
            at_start.tell("before start");
            assert_eq!(nodes(registry, "greeter").await, 0, "not registered yet");
            Ok::<_, Failure>(())
        })
        .before_start(story.hook("before start, again"))
        .after_start(story.hook("after start"))
        .before_stop(move || async move {
            at_stop.tell("before stop");
            assert_eq!(nodes(registry, "greeter").await, 1, "still registered");
            let stub = Stub::new("greeter", &client(registry));
            stub.say(Word::new("who?")).await.map_err(Failure::from)?;
            Ok::<_, Failure>(())
        })
        .after_stop(story.hook("after stop"));
    let mut service = builder.build().await.expect("a service");
    register(service.server(), Echo::named("greeter"));
    let handle = service.start().await.expect("no hook fails");
    registered(&handle).await;
    handle.stop().await.expect("no hook fails");
    assert_eq!(
        story.told(),
        ["before start", "before start, again", "after start", "before stop", "after stop"]
    );
    assert_eq!(nodes(registry, "greeter").await, 0);
}

#[tokio::test]
async fn a_service_whose_first_hook_fails_neither_binds_nor_registers() {
    let registry = "memory://hooks-before";
    // Taken: to bind it would be another error.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let story = Story::default();
    let builder = builder(registry)
        .address(taken.local_addr().expect("an address").to_string())
        .before_start(story.hook("first"))
        .before_start(failing("no database"))
        .before_start(story.hook("third"))
        .after_start(story.hook("after start"))
        .before_stop(story.hook("before stop"))
        .after_stop(story.hook("after stop"));
    let error = builder.build().await.expect("a service").run().await.expect_err("no database");
    assert_eq!(error.kind(), ErrorKind::Hook);
    assert_eq!(error.to_string(), "before_start hook 2 of 3 failed");
    assert_eq!(error.source().expect("the hook's own").to_string(), "no database");
    assert_eq!(story.told(), ["first"]);
    assert_eq!(nodes(registry, "greeter").await, 0);
}

#[tokio::test]
async fn a_failure_after_the_start_makes_the_service_leave() {
    let registry = "memory://hooks-after";
    let story = Story::default();
    let builder = builder(registry)
        .after_start(failing("no cache"))
        .before_stop(story.hook("before stop"))
        .after_stop(failing("too late"));
    let error = builder.build().await.expect("a service").run().await.expect_err("no cache");
    assert_eq!(format!("{error:?}"), "after_start hook 1 of 1 failed: no cache", "the first");
    assert_eq!(story.told(), ["before stop"]);
    assert_eq!(nodes(registry, "greeter").await, 0);
}

#[tokio::test]
async fn failures_and_panics_while_stopping_stop_nothing() {
    let registry = "memory://hooks-stop";
    let log = Log::down_to(Level::WARN);
    let story = Story::default();
    let builder = builder(registry)
        .before_stop(|| async {
            if nodes("memory://hooks-stop", "greeter").await == 1 {
                panic!("a user's fault");
            }
            Ok::<_, Failure>(())
        })
        .before_stop(story.hook("before stop"))
        .after_stop(failing("flush"))
        .after_stop(story.hook("after stop"));
    let handle = builder.build().await.expect("a service").start().await.expect("a free port");
    registered(&handle).await;
    let error = handle.stop().await.expect_err("a panic");
    assert_eq!(error.kind(), ErrorKind::Hook);
    assert_eq!(error.to_string(), "before_stop hook 1 of 2 panicked: a user's fault");
    assert_eq!(story.told(), ["before stop", "after stop"]);
    assert_eq!(nodes(registry, "greeter").await, 0);
    let second = r#"WARN after_stop hook 1 of 2 failed: flush service="greeter""#;
    assert_eq!(log.lines_with("hook"), [second], "what is not returned is logged");
}

#[tokio::test]
async fn a_panic_without_a_text_says_so() {
    let wordless = || async {
        if true {
            std::panic::panic_any(7);
        }
        Ok::<_, Failure>(())
    };
    let service = builder("memory://hooks-wordless").before_start(wordless).build().await;
    let error = service.expect("a service").run().await.expect_err("a panic");
    let text = "before_start hook 1 of 1 panicked: its payload is not a text";
    assert_eq!(error.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_is_given_up() {
    let hang = || async {
        pending::<()>().await;
        Ok::<_, Failure>(())
    };
    let begin = tokio::time::Instant::now();
    let service = builder("memory://hooks-hang").before_start(hang).build().await;
    let error = service.expect("a service").run().await.expect_err("it hangs");
    assert!(error.to_string().starts_with("before_start hook 1 of 1 did not end within 30s"));
    assert_eq!(begin.elapsed().as_secs(), 30);

    let builder = builder("memory://hooks-hang")
        .hook_timeout(Duration::from_secs(2))
        .before_stop(hang)
        .after_stop(hang)
        .shutdown(async {});
    let begin = tokio::time::Instant::now();
    let error = builder.build().await.expect("a service").run().await.expect_err("it hangs");
    assert!(error.to_string().starts_with("before_stop hook 1 of 1 did not end within 2s"));
    assert_eq!(begin.elapsed().as_secs(), 4, "each has its own time");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_could_not_be_given_up_in_time_has_failed() {
    // As if the thread had been held: the clock is beyond the bound when it can be looked at again.
    let late = || async {
        tokio::time::advance(Duration::from_secs(8)).await;
        Ok::<_, Failure>(())
    };
    for (bound, is_enough) in [(1, false), (8, true), (0, true)] {
        let builder = builder("memory://hooks-late").hook_timeout(Duration::from_secs(bound));
        let hold = || std::future::ready(Ok::<_, Failure>(()));
        let builder =
            if bound == 0 { builder.before_start(hold) } else { builder.before_start(late) };
        let service = builder.shutdown(async {}).build().await.expect("a service");
        let text = service.run().await.err().map(|error| error.to_string());
        assert_eq!(text.is_none(), is_enough, "{bound} s: {text:?}");
        assert!(text.is_none_or(|it| it.contains("hook 1 of 1 did not end within 1s")));
    }
}

#[tokio::test]
async fn a_hook_after_the_start_that_still_runs_does_not_hold_up_leaving() {
    let story = Story::default();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let builder = builder("memory://hooks-dropped")
        .after_start(|| async {
            started.send(()).expect("the test waits");
            pending::<Result<(), Failure>>().await
        })
        .after_stop(story.hook("after stop"));
    let handle = builder.build().await.expect("a service").start().await.expect("a free port");
    has_started.await.expect("the hook runs");
    handle.stop().await.expect("a hook that was dropped has not failed");
    assert_eq!(story.told(), ["after stop"]);
}
