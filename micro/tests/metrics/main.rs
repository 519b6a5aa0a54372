//! What registration and discovery tell OpenTelemetry, with its SDK, under paused time. The provider is
//! the process's, so that these tests are a program of their own; each has its own registry in it.

mod collected;
mod discovery;
mod faulty;
mod guide;
mod registration;

use std::time::Duration;

use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Lets everybody do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}
