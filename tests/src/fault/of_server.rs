//! What may happen to a registry's server, done to anybody's client alike: of the table of faults, what
//! others' clients are shown too.

use std::time::Duration;

use tokio::time::sleep;

use super::{AWAY_FOR_A_MOMENT, Garbage, Server};

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFault {
    /// In its place somebody answers garbage for 5 s.
    AnswersGarbage,
    /// It is stopped with SIGSTOP for three times as long as a registration is good for.
    StoppedForThreeTtls,
}

impl ServerFault {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::AnswersGarbage, Self::StoppedForThreeTtls];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswersGarbage => "answers garbage",
            Self::StoppedForThreeTtls => "stopped for 3 x TTL",
        }
    }

    /// Does it to this server, and ends it.
    ///
    /// # Panics
    /// When nobody heard the garbage, or the server does not start again.
    pub async fn act(self, server: &mut impl Server, ttl: Duration) {
        match self {
            Self::AnswersGarbage => {
                server.kill();
                let garbage = Garbage::at(&server.address()).await;
                sleep(AWAY_FOR_A_MOMENT).await;
                assert!(garbage.stop().await > 0, "nobody heard any of it");
                server.restart().await;
            }
            Self::StoppedForThreeTtls => {
                server.pause();
                sleep(3 * ttl).await;
                server.resume();
            }
        }
    }
}
