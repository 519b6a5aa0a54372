//! Which clients are in use, which were given up, and when the next may be made, without IO.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::backoff::Backoff;

/// The pauses between clients that are of no use soon: up to these, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a client is in use for its end to be a new trouble, and no part of an earlier one.
const LASTED: Duration = LONGEST_PAUSE;

/// How many of one server are kept given up, before the one given up first is taken up again: the SDK
/// connects again within 64 s, and no client of its can be ended.
const MAX_GIVEN_UP: usize = 8;

/// The clients of a pool. One that is given up is replaced at once if it had lasted; those that do not
/// last, as with a server that is slow for each, are replaced after pauses.
#[derive(Debug)]
pub(super) struct Clients<C> {
    /// And since when.
    in_use: Vec<(Arc<C>, Instant)>,
    /// The last one last.
    given_up: VecDeque<Arc<C>>,
    backoff: Backoff,
    /// What comes next: at first there is none.
    pause: Duration,
    paused_until: Option<Instant>,
}

impl<C> Clients<C> {
    pub(super) fn new() -> Self {
        Self {
            in_use: Vec::new(),
            given_up: VecDeque::new(),
            backoff: Backoff::full_jitter(FIRST_PAUSE, LONGEST_PAUSE),
            pause: Duration::ZERO,
            paused_until: None,
        }
    }

    /// One in use that is fit. While none is made before the deadline, also one that was given up, the last
    /// one first: it may be well again.
    pub(super) fn find(
        &self,
        is_fit: impl Fn(&C) -> bool,
        now: Instant,
        deadline: Instant,
    ) -> Option<Arc<C>> {
        let is_paused = self.paused_until(now).is_some_and(|until| until >= deadline);
        let in_use = self.in_use.iter().map(|(client, _)| client);
        let given_up = self.given_up.iter().rev().filter(|_| is_paused);
        in_use.chain(given_up).find(|client| is_fit(client)).cloned()
    }

    /// One that is fit, also of those given up: one in use before, and the last one first.
    pub(super) fn any(&self, is_fit: impl Fn(&C) -> bool) -> Option<Arc<C>> {
        let in_use = self.in_use.iter().rev().map(|(client, _)| client);
        in_use.chain(self.given_up.iter().rev()).find(|client| is_fit(client)).cloned()
    }

    /// Until when none may be made, if that is yet to come.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    pub(super) fn add(&mut self, client: Arc<C>, now: Instant) {
        self.in_use.push((client, now));
    }

    /// It is used for nothing new.
    pub(super) fn give_up(&mut self, client: &Arc<C>, now: Instant) {
        let Some(index) = self.in_use.iter().position(|(it, _)| Arc::ptr_eq(it, client)) else {
            return;
        };
        let (client, since) = self.in_use.swap_remove(index);
        self.given_up.push_back(client);
        if now - since < LASTED {
            self.fail(now);
        } else {
            self.backoff.reset();
            self.pause = Duration::ZERO;
        }
    }

    /// A client was not made, or has not lasted. Several at once are one trouble.
    pub(super) fn fail(&mut self, now: Instant) {
        if self.paused_until(now).is_none() {
            self.paused_until = Some(now + self.pause);
            self.pause = self.backoff.next();
        }
    }

    /// Uses one again, rather than that one more is made, if there are enough of a certain server's that
    /// were given up or take records back still: the first of those given up. False if there are not
    /// enough.
    ///
    /// # Errors
    /// How many take records back, if none is given up and so all of them are in use already.
    pub(super) fn take_up(
        &mut self,
        is_its: impl Fn(&C) -> bool,
        takes_back: impl Fn(&C) -> bool,
        now: Instant,
    ) -> Result<bool, usize> {
        let taking = self.in_use.iter().filter(|(it, _)| is_its(it) && takes_back(it)).count();
        let given_up = self.given_up.iter().filter(|it| is_its(it)).count();
        if given_up + taking < MAX_GIVEN_UP {
            return Ok(false);
        }
        let first = self.given_up.iter().position(|it| is_its(it));
        let client = first.and_then(|index| self.given_up.remove(index)).ok_or(taking)?;
        self.add(client, now);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const ANY: fn(&u32) -> bool = |_| true;
    const NONE: fn(&u32) -> bool = |_| false;
    const SECOND: Duration = Duration::from_secs(1);

    fn clients() -> (Clients<u32>, Instant) {
        let mut clients = Clients::new();
        clients.backoff = clients.backoff.with_rng(Rng::with_seed(7));
        (clients, Instant::now())
    }

    fn find(clients: &Clients<u32>, now: Instant) -> Option<u32> {
        clients.find(ANY, now, now).map(|it| *it)
    }

    #[tokio::test]
    async fn one_that_lasted_is_replaced_at_once_and_the_first_that_did_not() {
        let (mut clients, start) = clients();
        let (one, two) = (Arc::new(1), Arc::new(2));
        clients.add(one.clone(), start);
        let later = start + 2 * LASTED;
        clients.give_up(&one, later);
        assert_eq!((find(&clients, later), clients.paused_until(later)), (None, None));
        clients.add(two.clone(), later);
        clients.give_up(&two, later + SECOND);
        assert_eq!(clients.paused_until(later + SECOND), None);
        clients.give_up(&two, later + SECOND);
        assert_eq!(clients.given_up.len(), 2, "it was given up already");
        let any = |clients: &Clients<u32>| clients.any(ANY).map(|it| *it);
        assert_eq!(any(&clients), Some(2), "the last of those given up");
        clients.add(Arc::new(3), later + SECOND);
        assert_eq!(any(&clients), Some(3), "and one in use before them");
    }

    #[tokio::test]
    async fn in_a_pause_the_last_one_given_up_is_handed_out() {
        let (mut clients, now) = clients();
        let all: Vec<_> = (0..3).map(Arc::new).collect();
        for client in &all {
            clients.add(client.clone(), now);
            clients.fail(now);
            clients.give_up(client, now);
        }
        let until = clients.paused_until(now).expect("a pause");
        assert!(until <= now + FIRST_PAUSE, "three at once are one trouble");
        assert_eq!(find(&clients, now), Some(2));
        assert_eq!(clients.find(|it| *it < 2, now, until).as_deref(), Some(&1));
        assert_eq!(clients.find(ANY, now, until + SECOND), None, "another is made in time");
        assert_eq!(find(&clients, until), None, "another may be made");
        clients.add(Arc::new(9), now);
        assert_eq!(find(&clients, now), Some(9), "one in use comes first");
    }

    /// An hour with a server that each client finds slow in a second.
    #[tokio::test]
    async fn clients_that_do_not_last_are_few() {
        let (mut clients, start) = clients();
        let (mut now, mut made, mut uses) = (start, 0, 0);
        while now < start + 3600 * SECOND {
            let client = match clients.find(ANY, now, now) {
                Some(client) => client,
                None if clients.take_up(ANY, NONE, now).unwrap() => continue,
                None => {
                    made += 1;
                    clients.add(Arc::new(made), now);
                    continue;
                }
            };
            uses += 1;
            now += SECOND;
            clients.give_up(&client, now);
            let pause = clients.paused_until(now).map(|until| until - now);
            assert!(pause.is_none_or(|pause| pause <= LONGEST_PAUSE));
        }
        assert_eq!(uses, 3600, "there is one to ask at any time");
        assert_eq!(made, 8, "one given up first is used again");
        assert_eq!(clients.in_use.len() + clients.given_up.len(), 8);
    }

    /// An hour with a server that answers no registration: none that was given up takes another.
    #[tokio::test]
    async fn clients_that_take_records_back_are_few() {
        let (mut clients, start) = clients();
        let mut now = start;
        let mut made = 0;
        let mut failed = 0;
        let mut used = std::collections::BTreeSet::new();
        while now < start + 3600 * SECOND {
            if let Some(client) = clients.find(|it| !used.contains(it), now, now) {
                used.insert(*client);
                now += SECOND;
                clients.give_up(&client, now);
            } else if let Some(until) = clients.paused_until(now) {
                now = until;
            } else {
                match clients.take_up(ANY, |it| used.contains(it), now) {
                    Ok(true) => {}
                    Ok(false) => {
                        made += 1;
                        clients.add(Arc::new(made), now);
                    }
                    Err(count) => {
                        assert_eq!(count, MAX_GIVEN_UP);
                        failed += 1;
                        now += SECOND;
                    }
                }
            }
        }
        assert_eq!(made, 8);
        assert!(failed > 3000, "whoever registers is told so, each time: {failed}");
        used.remove(&3);
        let fit = clients.find(|it| !used.contains(it), now, now);
        assert_eq!(fit.as_deref(), Some(&3), "it has taken all back");
    }

    #[tokio::test]
    async fn those_of_another_server_are_not_taken_up() {
        let (mut clients, now) = clients();
        for number in 0..2 * MAX_GIVEN_UP as u32 - 1 {
            let client = Arc::new(number);
            clients.add(client.clone(), now);
            clients.give_up(&client, now);
        }
        assert_eq!(clients.take_up(|it| it % 2 == 1, NONE, now), Ok(false), "there are 7");
        assert_eq!(clients.take_up(|it| it % 2 == 0, NONE, now), Ok(true), "there are 8");
        assert_eq!(*clients.in_use[0].0, 0, "the first of all");
    }
}
