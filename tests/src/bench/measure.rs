//! Measuring: the CPU time of this process for a burst of calls.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::{task::JoinSet, time::Instant};

use super::contestants::Contestant;

/// What a burst of calls took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// CPU time of this process, user and system, a call.
    pub cpu: Duration,
    /// Calls a second.
    pub rate: f64,
}

/// The CPU time that this process has used so far.
pub fn cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// The time since some moment, the same in every process of the machine.
pub fn now() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("time used is not negative");
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).expect("nor are nanoseconds"))
}

/// Makes about `calls` calls from `callers` tasks at once.
///
/// # Panics
/// When a call fails.
pub async fn burst(contestant: &impl Contestant, callers: u32, calls: u32) -> Sample {
    let each = calls.div_ceil(callers);
    let (cpu_before, begin) = (cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let mut contestant = contestant.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                contestant.call().await;
            }
        });
    }
    tasks.join_all().await;
    let calls = callers * each;
    Sample {
        cpu: (cpu() - cpu_before) / calls,
        rate: f64::from(calls) / begin.elapsed().as_secs_f64(),
    }
}

/// The median of some values, and the least and greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The value that half of the others are below.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[0], values[values.len() - 1]);
        Self { median: values[values.len() / 2], low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_value_and_both_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 9.0]), Spread { median: 3.0, low: 1.0, high: 9.0 });
    }
}
