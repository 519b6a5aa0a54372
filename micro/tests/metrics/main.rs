//! What registration, discovery and calls tell OpenTelemetry, with its SDK, mostly under paused time. The
//! provider is the process's, so that these tests are a program of their own; each has its own registry
//! in it.

mod calls;
mod collected;
mod configs;
mod discovery;
#[allow(unreachable_pub, reason = "it is generated for a module of a library")]
mod echo;
mod faulty;
mod guide;
mod handled;
mod nodes;
mod registration;

use std::time::Duration;

use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Lets everybody do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}
