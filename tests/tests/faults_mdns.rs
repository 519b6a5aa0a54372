//! What may happen to `mdns://` while calls go on. There is no server: each node tells of itself, and
//! is asked itself. So what can be done is what anybody on the network can say in a node's name, and to
//! take multicast away: cut (sending fails), silent or slow.

use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

use micro::{
    registry::{Event, Malformed},
    testing::registry::Watching,
};
use tests::{
    fault::{AWAY, AWAY_FOR_A_MOMENT, CALLS, Cannot, SERVICE, TTL, Trial, judge, noise, now},
    multicast::Multicast,
    namespace,
};
use tokio::time::sleep;

/// As for the registries that have a server.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

const NO_SERVER: &str = "there is no server: each node tells of itself";

const NO_START: &str = "whoever starts where multicast does not work is refused, and told what to use \
    instead: nothing says whether it will ever work there";

const DECLARED: &[(&str, &str)] = &[
    (
        "every_lease_lost",
        "there are no leases: what a node says holds for 120 s, and is said again",
    ),
    ("killed_and_restarted", NO_SERVER),
    ("wiped", NO_SERVER),
    ("restored_to_an_older_state", NO_SERVER),
    ("connection_flaps", "there is no connection"),
    ("credentials_expired_and_renewed", "whoever is on the network may ask and tell"),
    ("down_at_the_start", NO_START),
    ("down_at_the_start_with_a_cache", NO_START),
    (
        "away_for_longer_than_max_stale",
        "silence is no error: whoever has not been heard for 120 s is gone",
    ),
];

/// Does a fault, if it is one that can be done.
async fn bear(fault: &str) -> Result<(), Cannot> {
    match fault {
        "every_record_deleted" => others_say(fault, 0).await,
        "every_record_overwritten" => others_say(fault, 120).await,
        "answers_garbage" => others_make_noise(fault).await,
        "stopped_for_three_ttls"
        | "connection_cut"
        | "connection_black_holed"
        | "five_seconds_slow" => without_multicast(fault).await,
        _ => return Err(Cannot),
    }
    Ok(())
}

/// Takes away what carries the registry, and leaves what carries the calls.
async fn without_multicast(fault: &str) {
    let mut multicast = Multicast::new().await;
    let mut trial = trial(fault).await;
    let away = match fault {
        "connection_cut" => {
            multicast.cut().await;
            AWAY_FOR_A_MOMENT
        }
        "stopped_for_three_ttls" => {
            multicast.silence().await;
            3 * TTL
        }
        "five_seconds_slow" => {
            multicast.slow(Duration::from_secs(5)).await;
            AWAY
        }
        _ => {
            multicast.silence().await;
            AWAY
        }
    };
    sleep(away).await;
    multicast.mend().await;
    let took = trial.all_listed(now()).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after multicast");
    go_on(trial).await;
}

/// A node that takes another's place is called.
async fn go_on(mut trial: Trial) {
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    trial.finish(CALLS).await;
}

async fn trial(fault: &str) -> Trial {
    Trial::beside_others(&format!("mdns: {}", fault.replace('_', " ")), "mdns://").await
}

/// Somebody says something else of each node.
async fn others_say(fault: &str, ttl: u32) {
    let mut trial = trial(fault).await;
    let mut watching = Watching::from_now(&trial.fleet.registry, SERVICE).await;
    let said = now();
    for id in trial.fleet.ids() {
        tell(&id, ttl);
    }
    // Each is taken for gone, or for none, and is then back by its own word.
    let (mut struck, mut back) = (BTreeSet::new(), BTreeSet::new());
    let ids: BTreeSet<_> = trial.fleet.ids().into_iter().collect();
    while back != ids {
        for event in watching.next().await.events {
            match event {
                Event::Put(entry) if struck.contains(&entry.node.id) => {
                    back.insert(entry.node.id.clone());
                }
                Event::Delete(key) | Event::Malformed(Malformed { key, .. }) => {
                    struck.extend(key.rsplit('/').next().map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    let took = now() - said;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after what was said of them");
    assert_eq!(trial.all_listed(now()).await, Duration::ZERO, "and for good");
    go_on(trial).await;
}

/// Somebody sends what is no packet, and packets whose rest is none.
async fn others_make_noise(fault: &str) {
    let mut trial = trial(fault).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let end = now() + AWAY_FOR_A_MOMENT;
    while now() < end {
        let head = [0, 0, 0x84, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        for packet in [noise(400), [&head[..], &noise(400)].concat()] {
            socket.send_to(&packet, "224.0.0.251:5353").expect("the packet is sent");
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(trial.all_listed(now()).await, Duration::ZERO, "nobody was taken for gone");
    go_on(trial).await;
}

/// Says in the node's name that it is at port 9, with a text that is none; or, with a TTL of zero, that
/// it is gone.
fn tell(id: &str, ttl: u32) {
    let mut name = Vec::new();
    for label in format!("{id}.{SERVICE}.micro.").split('.') {
        name.push(u8::try_from(label.len()).expect("it is short"));
        name.extend(label.as_bytes());
    }
    let srv = [&[0, 0, 0, 0, 0, 9][..], &name].concat();
    // A response, of three records.
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    for (kind, data) in [(33, &srv[..]), (1, &[127, 0, 0, 1]), (16, b"\x04what")] {
        packet.extend(&name);
        packet.extend([0, kind, 0, 1]);
        packet.extend(ttl.to_be_bytes());
        packet.extend(u16::try_from(data.len()).expect("it is short").to_be_bytes());
        packet.extend(data);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(&packet, "224.0.0.251:5353").expect("the packet is sent");
}

macro_rules! on_mdns {
    (=> $($fault:ident)*) => {
        mod mdns {
            use super::*;

            $(
                #[test]
                fn $fault() {
                    let fault = stringify!($fault);
                    if DECLARED.iter().any(|(cannot, _)| *cannot == fault) {
                        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                        return judge(fault, runtime.block_on(bear(fault)), DECLARED);
                    }
                    namespace::on_loopback(&format!("mdns::{fault}"), async {
                        judge(fault, bear(fault).await, DECLARED);
                    });
                }
            )*
        }
    };
}

tests::every_fault! { on_mdns! {} }
