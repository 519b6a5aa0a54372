//! What tonic's channel is told.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{Receiver, channel},
    time::sleep,
};
use tonic::transport::{Endpoint, channel::Change};

use super::scripted::Scripted;
use crate::discovery::{Discovery, fanout::KEPT, tonic::forward};

type Changes = Receiver<Change<Arc<str>, Endpoint>>;

/// Forwards to a queue of this many places in a task of its own.
fn forwarding(registry: &Arc<Scripted>, places: usize) -> Changes {
    let (sender, changes) = channel(places);
    let updates = Discovery::new(registry.clone()).subscribe("greeter");
    tokio::spawn(forward(updates.into_discover(), sender));
    changes
}

async fn next(changes: &mut Changes) -> String {
    match changes.recv().await.expect("changes never end") {
        Change::Insert(id, endpoint) => format!("+{id}@{}", endpoint.uri()),
        Change::Remove(id) => format!("-{id}"),
    }
}

async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_are_inserted_by_id_and_replaced_when_their_address_changes() {
    let registry = Scripted::new(&["a@[::1]:1", "b@host:2"]);
    let mut changes = forwarding(&registry, 64);
    assert_eq!(next(&mut changes).await, "+a@http://[::1]:1/");
    assert_eq!(next(&mut changes).await, "+b@http://host:2/");
    registry.write(&["b@host:3"]);
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["-b", "+b@http://host:3/"]);
    registry.write(&["-a"]);
    assert_eq!(next(&mut changes).await, "-a");
}

#[tokio::test(start_paused = true)]
async fn a_node_at_the_same_address_keeps_its_connection() {
    let registry = Scripted::new(&["a@host:1"]);
    let mut changes = forwarding(&registry, 64);
    next(&mut changes).await;
    registry.write(&["a@host:1"]);
    settle().await;
    assert!(changes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_is_left_out() {
    let registry = Scripted::new(&["a@host:1", "b@not an address"]);
    let mut changes = forwarding(&registry, 64);
    assert_eq!(next(&mut changes).await, "+a@http://host:1/");
    registry.write(&["a@nor this"]);
    assert_eq!(next(&mut changes).await, "-a");
    registry.write(&["b@host:2"]);
    assert_eq!(next(&mut changes).await, "+b@http://host:2/");
}

#[tokio::test(start_paused = true)]
async fn the_subscription_ends_with_the_channel() {
    let registry = Scripted::new(&["a@host:1"]);
    let mut changes = forwarding(&registry, 64);
    next(&mut changes).await;
    assert_eq!(registry.watchers(), 1);
    drop(changes);
    sleep(2 * KEPT).await;
    assert_eq!(registry.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_nothing_in_catches_up_when_it_does() {
    let registry = Scripted::new(&["a@host:1"]);
    let mut changes = forwarding(&registry, 1);
    settle().await;
    for port in 2..2000 {
        registry.write(&[&format!("a@host:{port}")]);
    }
    settle().await;
    let mut last = next(&mut changes).await;
    while last != "+a@http://host:1999/" {
        last = next(&mut changes).await;
    }
}
