//! How many calls a server makes in a second, so that a thousand servers that start cold at the same time do not use up the quota
//! of the account: a token bucket that holds a second's calls (GCRA, ITU-T I.371, which needs one number). Whoever has to wait does
//! so by turns: a session that wants many data keys does not keep out one that wants one.

use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::oneshot::{self, Sender};

/// The bucket's size, as the time in which it fills.
const BURST: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The session that a call is made for.
    static CALLER: i32;
}

/// Has the calls of a future count as those of a session, which is known by its process id.
pub fn on_behalf_of<F: Future>(session: i32, calls: F) -> impl Future<Output = F::Output> {
    CALLER.scope(session, calls)
}

/// Has them count as those of the session whose request is being worked on now, whoever waits for the future in the end.
pub fn on_behalf_of_current<F: Future>(calls: F) -> impl Future<Output = F::Output> {
    on_behalf_of(caller(), calls)
}

fn caller() -> i32 {
    CALLER.try_with(|session| *session).unwrap_or_default()
}

/// The limit on calls. A clone is the same one.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    next: Next,
    waiting: Mutex<Turns>,
    /// Held by whoever waits for the bucket, for all.
    watching: tokio::sync::Mutex<()>,
}

/// When the bucket is full again, in microseconds since 1970.
enum Next {
    Own(AtomicU64),
    /// What all processes of the server have in common.
    Shared(&'static AtomicU64),
}

/// Who waits: sessions by turns, and the calls of each in their order.
#[derive(Default)]
struct Turns(VecDeque<(i32, VecDeque<Sender<()>>)>);

impl Limiter {
    /// A limit that all processes have in common which count here; zero at first.
    #[must_use]
    pub fn shared(next: &'static AtomicU64) -> Self {
        Self::new(Next::Shared(next))
    }

    fn new(next: Next) -> Self {
        Self(Arc::new(Inner { next, waiting: Mutex::default(), watching: tokio::sync::Mutex::default() }))
    }

    /// How many calls wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let turns = self.0.waiting.lock();
        turns.0.iter().flat_map(|(_, calls)| calls).filter(|call| !call.is_closed()).count() as u64
    }

    /// Takes leave for one call, if nobody waits and there is one.
    pub(crate) fn try_turn(&self, rate: NonZeroU32) -> bool {
        self.waiting() == 0 && self.take(rate).is_none()
    }

    /// Waits for leave to make one call. Dropping the future gives the turn up.
    pub(crate) async fn turn(&self, rate: NonZeroU32) {
        let (sender, mut turn) = oneshot::channel();
        self.0.waiting.lock().add(caller(), sender);
        tokio::select! {
            biased;
            _ = &mut turn => {}
            () = self.watch(rate) => {}
        }
    }

    /// Gives turns, until it is the caller's own.
    async fn watch(&self, rate: NonZeroU32) {
        let _watching = self.0.watching.lock().await;
        while self.waiting() > 0 {
            match self.take(rate) {
                Some(time) => tokio::time::sleep(time).await,
                None => {
                    self.0.waiting.lock().give();
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Takes a call out of the bucket; how long to wait if there is none.
    fn take(&self, rate: NonZeroU32) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let (interval, burst) = (1_000_000 / u64::from(rate.get()), BURST.as_micros() as u64);
        let next = self.0.next.number();
        let mut full_at = next.load(Ordering::Relaxed);
        loop {
            // Later than an empty bucket can be: the clock was set back, or it is no number of ours.
            let from = if full_at > now + burst + interval { now } else { full_at.max(now) };
            let then = from + interval;
            if then > now + burst {
                return Some(Duration::from_micros(then - now - burst));
            }
            match next.compare_exchange_weak(full_at, then, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return None,
                Err(changed) => full_at = changed,
            }
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Next::Own(AtomicU64::new(0)))
    }
}

impl Next {
    fn number(&self) -> &AtomicU64 {
        match self {
            Self::Own(number) => number,
            Self::Shared(number) => number,
        }
    }
}

impl Turns {
    fn add(&mut self, session: i32, call: Sender<()>) {
        match self.0.iter_mut().find(|(other, _)| *other == session) {
            Some((_, calls)) => calls.push_back(call),
            None => self.0.push_back((session, VecDeque::from([call]))),
        }
    }

    /// Gives one turn to whoever is next and still waits.
    fn give(&mut self) {
        while let Some((session, mut calls)) = self.0.pop_front() {
            while let Some(call) = calls.pop_front() {
                if call.send(()).is_ok() {
                    if !calls.is_empty() {
                        self.0.push_back((session, calls));
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Instant;

    use super::*;

    fn rate(calls: u32) -> NonZeroU32 {
        NonZeroU32::new(calls).unwrap()
    }

    #[test]
    fn the_bucket_holds_a_second() {
        let limiter = Limiter::default();
        let at_once = (0..1_000).filter(|_| limiter.take(rate(20)).is_none()).count();
        assert!((20..=22).contains(&at_once), "{at_once}");
        assert!(limiter.take(rate(20)).unwrap() <= Duration::from_millis(50));
        std::thread::sleep(Duration::from_millis(160));
        let more = (0..1_000).filter(|_| limiter.take(rate(20)).is_none()).count();
        assert!((2..=10).contains(&more), "20 in a second: {more}");
    }

    #[test]
    fn what_is_no_time_of_an_empty_bucket_keeps_nobody_out() {
        static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
        let limiter = Limiter::shared(&NEXT);
        for _ in 0..20 {
            assert_eq!(limiter.take(rate(20)), None);
        }
        assert!(limiter.take(rate(20)).is_some());
    }

    #[tokio::test]
    async fn sessions_take_turns() {
        let (limiter, order) = (Limiter::default(), Rc::new(RefCell::new(Vec::new())));
        while limiter.try_turn(rate(50)) {}
        let tasks = tokio::task::LocalSet::new();
        for session in [1, 1, 1, 1, 1, 1, 2, 3] {
            let (limiter, order) = (limiter.clone(), Rc::clone(&order));
            tasks.spawn_local(on_behalf_of(session, async move {
                limiter.turn(rate(50)).await;
                order.borrow_mut().push(session);
            }));
        }
        // One of them gives up.
        let given_up = limiter.clone();
        tasks.spawn_local(async move {
            let _ = tokio::time::timeout(Duration::from_millis(1), given_up.turn(rate(50))).await;
        });
        let started = Instant::now();
        tasks.await;
        assert_eq!(order.borrow()[..4].iter().filter(|session| **session == 1).count(), 2, "{order:?}");
        assert_eq!(order.borrow().len(), 8);
        assert!(started.elapsed() >= Duration::from_millis(130), "8 calls, 50 in a second: {:?}", started.elapsed());
        assert_eq!(limiter.waiting(), 0);
    }
}
