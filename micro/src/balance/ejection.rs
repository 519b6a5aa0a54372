//! Which nodes are left out of the picks for what their calls have come to, and for how long:
//! without IO.
//!
//! Two rules eject a node that is connected:
//! - failures in a row, or nearly so (`tally`): three of its transport's (resets, broken answers, and
//!   connections lost under calls, each of which counts once however many calls it takes with it),
//!   or five of any kind, and more where the others' calls fail too: Envoy's `consecutive_5xx`, without
//!   which a node that fails fast has too few calls, as the balancer avoids it, for the other rule to
//!   judge it by;
//! - [gRFC A50], at each interval: an *outlier* by its success rate, or by its failure percentage, if its
//!   calls fail clearly more than the others'.
//!
//! An ejected node keeps its connection. It comes back after 30 s, twice as long the second time and so
//! on up to 300 s, by one probe: a call that goes well lets it in, one that fails leaves it out again.
//! (A50 lets it in by the time alone, and so a node that fails every call gets its share of calls
//! until the next interval is over.) What is out never exceeds half of the connected nodes:
//! when others are lost, those that come next are let in again, whatever became of them.
//!
//! [gRFC A50]: https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md

use std::{fmt, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::tally::Calls;

/// The rules, of which gRFC A50's have its names; where a default is not A50's, it says why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// How often outliers are looked for. 10 s.
    pub(crate) interval: Duration,
    /// How long the first ejection lasts. 30 s.
    pub(crate) base_ejection_time: Duration,
    /// How long one lasts at most. 300 s.
    pub(crate) max_ejection_time: Duration,
    /// The share of the connected nodes that may be out, in percent: 50, which is also the most.
    /// A50's 10 is "at least one" for a set of few: there it is the cap that spares the last.
    pub(crate) max_ejection_percent: u32,
    pub(crate) success_rate: Option<SuccessRate>,
    pub(crate) failure_percentage: Option<FailurePercentage>,
    /// Whether these two eject only those that fail clearly more than the others, by a tenth of all calls
    /// and not by chance. True. A50 has no such rule: when what all nodes need is down it takes half of
    /// them, and when one call of thousands to five nodes has failed, the node that it was made to.
    pub(crate) if_clear: bool,
}

/// Ejects those whose rate of success is far below the others'.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SuccessRate {
    /// How many standard deviations below the mean is far, in thousandths. 1900.
    pub(crate) stdev_factor: u32,
    /// The chance that an outlier is ejected, in percent. 100.
    pub(crate) enforcement_percentage: u32,
    /// How many nodes must have the volume. 5: of fewer none can be 1.9 deviations off.
    pub(crate) minimum_hosts: usize,
    /// How many calls a node must have had in the interval. 100.
    pub(crate) request_volume: u32,
}

/// Ejects those of whose calls more than so many fail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FailurePercentage {
    /// In percent. 85.
    pub(crate) threshold: u32,
    /// The chance that an outlier is ejected, in percent. 100.
    pub(crate) enforcement_percentage: u32,
    /// How many nodes must have the volume. 3, where A50 has 5: most services have no more.
    pub(crate) minimum_hosts: usize,
    /// How many calls a node must have had in the interval. 50.
    pub(crate) request_volume: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
            success_rate: Some(SuccessRate {
                stdev_factor: 1900,
                enforcement_percentage: 100,
                minimum_hosts: 5,
                request_volume: 100,
            }),
            failure_percentage: Some(FailurePercentage {
                threshold: 85,
                enforcement_percentage: 100,
                minimum_hosts: 3,
                request_volume: 50,
            }),
            if_clear: true,
        }
    }
}

/// Why a node is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Transport failures, three in a row or nearly so.
    TransportFailures,
    /// Failures, five in a row or nearly so, while the others answer.
    Failures,
    /// Its success rate is far below the others'.
    SuccessRate,
    /// Too many of its calls fail.
    FailurePercentage,
    /// The call that was to let it in again has failed.
    Probe,
}

impl Reason {
    /// The name in metrics: where gRFC A91 has one, that.
    pub(super) fn detection_method(self) -> &'static str {
        match self {
            Self::TransportFailures => "transport_failures",
            Self::Failures => "failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransportFailures => "transport failures in a row",
            Self::Failures => "failures in a row",
            Self::SuccessRate => "its success rate is far below the others'",
            Self::FailurePercentage => "too many of its calls fail",
            Self::Probe => "the call that tried it again has failed",
        })
    }
}

impl Rules {
    /// How many of `connected` nodes may be out.
    pub(super) fn most(&self, connected: usize) -> usize {
        let percent = self.max_ejection_percent.min(50) as usize;
        // A50: at least one, whatever the share; never more than half, and never the last.
        (connected * percent / 100).max(usize::from(percent > 0)).min(connected / 2)
    }

    /// The outliers by what each node's calls have come to in an interval, each by its place.
    pub(super) fn outliers(&self, calls: &[Calls], rng: &mut Rng) -> Vec<(usize, Reason)> {
        let (mut outliers, mut is_out) = (Vec::new(), vec![false; calls.len()]);
        let all: Calls = calls.iter().copied().sum();
        let is_clear = |place: usize| {
            !self.if_clear || calls[place].fail_clearly_more_than(all - calls[place])
        };
        let mut eject = |place: usize, reason, chance| {
            if is_clear(place)
                && rng.u32(..100) < chance
                && !std::mem::replace(&mut is_out[place], true)
            {
                outliers.push((place, reason));
            }
        };
        if let Some(rule) = &self.success_rate {
            let rates = rates(calls, rule.request_volume);
            let below = rule.below(&rates);
            for (place, _) in rates.iter().filter(|(_, rate)| *rate < below) {
                eject(*place, Reason::SuccessRate, rule.enforcement_percentage);
            }
        }
        if let Some(rule) = &self.failure_percentage {
            let rates = rates(calls, rule.request_volume);
            let is_failing = |rate: f64| (1.0 - rate) * 100.0 > f64::from(rule.threshold);
            if rates.len() >= rule.minimum_hosts {
                for (place, _) in rates.iter().filter(|(_, rate)| is_failing(*rate)) {
                    eject(*place, Reason::FailurePercentage, rule.enforcement_percentage);
                }
            }
        }
        outliers
    }
}

impl SuccessRate {
    /// The rate that is too low.
    fn below(&self, rates: &[(usize, f64)]) -> f64 {
        if rates.len() < self.minimum_hosts.max(1) {
            return 0.0;
        }
        let mean_of = |sum: f64| sum / rates.len() as f64;
        let mean = mean_of(rates.iter().map(|(_, rate)| rate).sum());
        let variance = mean_of(rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum());
        mean - variance.sqrt() * f64::from(self.stdev_factor) / 1000.0
    }
}

/// The success rates of those with enough calls, by place.
fn rates(calls: &[Calls], volume: u32) -> Vec<(usize, f64)> {
    let counted = calls.iter().enumerate().filter(|(_, calls)| calls.all() >= volume.max(1));
    counted.map(|(place, calls)| (place, 1.0 - calls.failed_share())).collect()
}

/// Whether one endpoint is out.
#[derive(Debug, Default)]
pub(super) struct EjectionState {
    phase: Phase,
    /// When it was last put out.
    since: Option<Instant>,
    /// How often it was put out, less one for each interval that it was in.
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// It takes calls.
    #[default]
    In,
    /// It takes none until this time.
    Out(Instant, Reason),
    /// It takes one call, which decides.
    Probed(Reason),
}

impl EjectionState {
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_in(&self) -> bool {
        self.phase == Phase::In
    }

    /// Whether what began then has to do with how it stands now.
    pub(super) fn is_of_now(&self, began: Instant) -> bool {
        self.since <= Some(began)
    }

    /// Puts it out; when its probe is due.
    pub(super) fn eject(&mut self, reason: Reason, rules: &Rules, now: Instant) -> Instant {
        self.times = self.times.saturating_add(1);
        let longest = rules.max_ejection_time.max(rules.base_ejection_time);
        let until = now + rules.base_ejection_time.saturating_mul(self.times).min(longest);
        (self.phase, self.since) = (Phase::Out(until, reason), Some(now));
        until
    }

    /// Its time is over.
    pub(super) fn expire(&mut self) {
        if let Phase::Out(_, reason) = self.phase {
            self.phase = Phase::Probed(reason);
        }
    }

    /// Lets it in.
    pub(super) fn admit(&mut self) {
        self.phase = Phase::In;
    }

    /// An interval in which it was in is over.
    pub(super) fn forgive(&mut self) {
        self.times = self.times.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(calls: &[(u32, u32)]) -> Vec<Calls> {
        calls.iter().map(|&(answered, failed)| Calls { answered, failed }).collect()
    }

    fn outliers(calls: &[(u32, u32)]) -> Vec<(usize, Reason)> {
        Rules::default().outliers(&counted(calls), &mut Rng::with_seed(1))
    }

    #[test]
    fn half_may_be_out_and_never_the_last() {
        let most = |connected| Rules::default().most(connected);
        let found: Vec<_> = (0..8).map(most).collect();
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3, 3]);
        let tenth = Rules { max_ejection_percent: 10, ..Rules::default() };
        let found: Vec<_> = [0, 1, 2, 3, 10, 19, 20, 100].map(|it| tenth.most(it)).into();
        assert_eq!(found, [0, 0, 1, 1, 1, 1, 2, 10], "at least one, as in gRFC A50");
        let none = Rules { max_ejection_percent: 0, ..Rules::default() };
        assert_eq!(none.most(100), 0);
        let all = Rules { max_ejection_percent: 100, ..Rules::default() };
        assert_eq!(all.most(100), 50, "half, whatever is asked for");
    }

    #[test]
    fn a_node_that_fails_more_than_85_percent_is_an_outlier_among_three() {
        let failing = [(0, Reason::FailurePercentage)];
        assert_eq!(outliers(&[(7, 43), (50, 0), (50, 0)]), failing, "86 percent");
        assert_eq!(outliers(&[(15, 85), (50, 0), (50, 0)]), [], "85 percent");
        assert_eq!(outliers(&[(0, 49), (50, 0), (50, 0)]), [], "49 calls say too little");
        assert_eq!(outliers(&[(0, 50), (50, 0), (49, 0)]), [], "of two that have the calls");
        assert_eq!(outliers(&[(0, 50), (0, 50)]), [], "two are too few");
    }

    #[test]
    fn a_success_rate_far_below_the_mean_is_an_outlier_among_five() {
        let worse = [(4, Reason::SuccessRate)];
        let good = (100, 0);
        assert_eq!(outliers(&[good, good, good, good, (70, 30)]), worse);
        assert_eq!(outliers(&[good, good, good, good, (69, 30)]), [], "99 calls say too little");
        assert_eq!(outliers(&[good, good, good, (70, 30)]), [], "four are too few");
        let (a, b) = ((98, 2), (96, 4));
        assert_eq!(outliers(&[a, b, a, b, a]), [], "none stands out");
        assert_eq!(outliers(&[good; 6]), [], "all are the same");
    }

    #[test]
    fn one_failed_call_of_thousands_makes_no_outlier_but_by_the_letter_of_a50() {
        let calls = [(9_999, 1), (10_000, 0), (10_000, 0), (10_000, 0), (10_000, 0)];
        assert_eq!(outliers(&calls), []);
        assert_eq!(outliers(&[(95, 5), (100, 0), (100, 0), (100, 0), (100, 0)]), [], "nor do five");
        let rules = Rules { if_clear: false, ..Rules::default() };
        let found = rules.outliers(&counted(&calls), &mut Rng::with_seed(1));
        assert_eq!(found, [(0, Reason::SuccessRate)]);
    }

    #[test]
    fn who_is_an_outlier_twice_is_named_once_and_chance_may_spare() {
        let calls = [(100, 0), (100, 0), (100, 0), (100, 0), (0, 100)];
        assert_eq!(outliers(&calls), [(4, Reason::SuccessRate)]);
        let calls = counted(&calls);
        let mut rules = Rules::default();
        for rule in rules.success_rate.iter_mut() {
            rule.enforcement_percentage = 0;
        }
        let mut rng = Rng::with_seed(1);
        assert_eq!(rules.outliers(&calls, &mut rng), [(4, Reason::FailurePercentage)]);
        for rule in rules.failure_percentage.iter_mut() {
            rule.enforcement_percentage = 30;
        }
        let times = (0..1_000).filter(|_| !rules.outliers(&calls, &mut rng).is_empty()).count();
        assert!((250..350).contains(&times), "{times} of a thousand, not some 300");
    }

    #[test]
    fn ejections_grow_by_thirty_seconds_to_five_minutes_and_are_forgiven_one_by_one() {
        let (rules, now) = (Rules::default(), Instant::now());
        let mut state = EjectionState::default();
        let seconds =
            |state: &mut EjectionState| (state.eject(Reason::Probe, &rules, now) - now).as_secs();
        let found: Vec<_> = (0..12).map(|_| seconds(&mut state)).collect();
        assert_eq!(found, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        for _ in 0..11 {
            state.forgive();
        }
        assert_eq!(seconds(&mut state), 60);
    }

    #[test]
    fn an_ejection_ends_by_a_probe() {
        let (rules, now) = (Rules::default(), Instant::now());
        let mut state = EjectionState::default();
        state.expire();
        assert!(state.is_in(), "nothing was there to expire");
        let until = state.eject(Reason::SuccessRate, &rules, now);
        assert_eq!(state.phase(), Phase::Out(until, Reason::SuccessRate));
        state.expire();
        assert_eq!(state.phase(), Phase::Probed(Reason::SuccessRate));
        state.admit();
        assert!(state.is_in());
    }
}
