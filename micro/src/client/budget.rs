//! How many attempts beyond their first a channel's calls may make.

use std::sync::{PoisonError, atomic::Ordering::Relaxed};

use tokio::time::Instant;

use crate::sync::{AtomicU64, Mutex};

/// Attempts a call, and attempts a second whatever the calls.
///
/// Finagle's retry budget and linkerd's, with their 20% and their 10 a second: a channel that is
/// hardly used may still try again, and one whose every call fails sends a fifth more and not five
/// times as much.
const A_CALL: f64 = 0.2;
const A_SECOND: f64 = 10.0;

/// What is not spent fades with this time constant, in seconds.
const WINDOW: f64 = 10.0;

/// What a channel's calls may spend on attempts beyond their first: 20% of the calls and 10 a second,
/// saved over about 10 s. It starts full, with 100.
///
/// Between two withdrawals the balance `b` follows `db/dt = 10 + 0.2 * calls/s - b / 10 s`, solved
/// exactly, so that it does not matter how often it is asked. Without calls it never exceeds 100.
#[derive(Debug)]
pub(super) struct Budget {
    /// All there ever were: the one thing that a call writes which does not fail.
    calls: AtomicU64,
    account: Mutex<Account>,
}

/// As of the last withdrawal.
#[derive(Debug)]
struct Account {
    balance: f64,
    calls: u64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        let account = Account { balance: A_SECOND * WINDOW, calls: 0, at: now };
        Self { calls: AtomicU64::new(0), account: Mutex::new(account) }
    }

    /// A call has begun.
    pub(super) fn deposit(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    /// How many attempts are left.
    pub(super) fn left(&self, now: Instant) -> f64 {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.advance(now, self.calls.load(Relaxed));
        account.balance
    }

    /// Whether there is another attempt left, which is then spent.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.advance(now, self.calls.load(Relaxed));
        let has_one = account.balance >= 1.0;
        if has_one {
            account.balance -= 1.0;
        }
        has_one
    }
}

impl Account {
    fn advance(&mut self, now: Instant, calls: u64) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        // Whoever read the counter before another may come to the lock after it.
        let new_calls = calls.saturating_sub(self.calls) as f64;
        let fades = -(-seconds / WINDOW).exp_m1();
        // The share that is left of what came in evenly meanwhile.
        let left = if seconds > 0.0 { WINDOW * fades / seconds } else { 1.0 };
        self.balance =
            self.balance * (1.0 - fades) + left * (A_CALL * new_calls + A_SECOND * seconds);
        self.calls = self.calls.max(calls);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn spent(budget: &Budget, now: Instant) -> u32 {
        (0..).take_while(|_| budget.withdraw(now)).count().try_into().expect("few")
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_at_once_and_then_ten_a_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert_eq!(spent(&budget, start), 100);
        let second = Duration::from_secs(1);
        assert_eq!(spent(&budget, start + second), 9, "some has faded");
        let every_tenth = (1..=1000)
            .filter(|tenth| budget.withdraw(start + second + Duration::from_millis(100) * *tenth));
        assert!((980..=1000).contains(&every_tenth.count()), "as it comes nothing fades");
        assert_eq!(spent(&budget, start + 1000 * second), 100, "what is saved has a bound");
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_for_every_five_calls() {
        let start = Instant::now();
        let budget = Budget::new(start);
        spent(&budget, start);
        (0..500).for_each(|_| budget.deposit());
        assert_eq!(spent(&budget, start), 100);
        (0..500).for_each(|_| budget.deposit());
        let later = start + Duration::from_secs(3600);
        assert_eq!(spent(&budget, later), 100, "calls of an hour count as one in seven seconds");
    }

    #[derive(Debug, Clone)]
    enum Event {
        Calls(u16),
        Wait(u32),
        Withdraw(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..2000_u16).prop_map(Event::Calls),
            (0..20_000_u32).prop_map(Event::Wait),
            (1..=255_u8).prop_map(Event::Withdraw),
        ];
        prop::collection::vec(event, 1..200)
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_exceeds_a_fifth_of_the_calls_and_ten_a_second(
            events in events(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            let _guard = runtime.enter();
            let mut now = Instant::now();
            let budget = Budget::new(now);
            // What was spent, less what came in.
            let mut beyond = 0.0_f64;
            for event in events {
                match event {
                    Event::Calls(calls) => {
                        (0..calls).for_each(|_| budget.deposit());
                        beyond -= 0.2 * f64::from(calls);
                    }
                    Event::Wait(millis) => {
                        now += Duration::from_millis(millis.into());
                        beyond -= 10.0 * f64::from(millis) / 1000.0;
                    }
                    Event::Withdraw(tries) => {
                        let taken = (0..tries).filter(|_| budget.withdraw(now)).count();
                        beyond += taken as f64;
                    }
                }
                prop_assert!(beyond <= 100.0 + 1e-6, "{beyond} beyond what came in");
            }
        }
    }
}
