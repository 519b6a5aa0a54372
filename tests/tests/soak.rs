//! Churn and faults at random, one after the other, for `MICRO_SOAK_MINUTES` (2 unless set): no call
//! fails that the table of faults does not excuse, and the client does not grow. What happens follows
//! from `MICRO_SOAK_SEED`, which is printed.

use std::{env, str::FromStr};

use tests::soak::Soak;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_without_excuse_and_the_client_does_not_grow() {
    let minutes = variable("MICRO_SOAK_MINUTES").unwrap_or(2);
    let seed = variable("MICRO_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("MICRO_SOAK_MINUTES={minutes} MICRO_SOAK_SEED={seed}");
    let summary = Soak::start(seed).await.go_on(minutes).await;
    println!("{summary}");

    assert!(summary.unexpected.is_empty(), "{:#?}", summary.unexpected);
    let (first, last) = (summary.first, summary.last);
    assert!(last.tasks <= first.tasks, "{} tasks after {}", last.tasks, first.tasks);
    assert!(last.open <= first.open, "{} descriptors after {}", last.open, first.open);
    let heap = first.heap + first.heap / 20;
    assert!(last.heap <= heap, "{} bytes allocated after {}", last.heap, first.heap);
    let most = summary.most_memory;
    assert!(most <= first.memory + first.memory / 20, "{most} bytes after {}", first.memory);
}
