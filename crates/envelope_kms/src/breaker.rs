//! A circuit breaker: after a failure that another call would only repeat, calls fail at once, without waiting for KMS, and
//! one call at a time is let through now and then to see whether it is over. Time is a parameter.

use std::time::{Duration, Instant};

/// How long the breaker stays open after the first failure in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The state of one breaker. `E` is what the calls that are not made fail with.
#[derive(Debug)]
pub struct Breaker<E> {
    open: Option<Open<E>>,
}

#[derive(Debug)]
struct Open<E> {
    since: Instant,
    failures: u32,
    probe_at: Instant,
    probing: bool,
    error: E,
}

/// Whether a call may be made.
#[derive(Debug, Eq, PartialEq)]
pub enum Permit<E> {
    /// Yes.
    Call,
    /// Yes, and everybody else waits for its result: see [`Breaker::probe_cancelled`].
    Probe,
    /// No: this is what the last call failed with.
    Open(E),
}

impl<E: Clone> Breaker<E> {
    /// Closed: calls are made.
    #[must_use]
    pub fn new() -> Self {
        Self { open: None }
    }

    /// Asks whether to make a call.
    pub fn permit(&mut self, now: Instant) -> Permit<E> {
        match &mut self.open {
            None => Permit::Call,
            Some(open) if open.probing || now < open.probe_at => Permit::Open(open.error.clone()),
            Some(open) => {
                open.probing = true;
                Permit::Probe
            }
        }
    }

    /// A call reached the service. Returns how long the breaker had been open, if it was.
    pub fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.open.take().map(|open| now.saturating_duration_since(open.since))
    }

    /// A call failed. `was_probe` tells the call of a [`Permit::Probe`] from those that were under way when the breaker opened,
    /// which make nothing worse. `jitter` between 0 and 255 spreads the probes of many processes over half of the pause.
    /// Returns whether the breaker was closed until now.
    pub fn failed(&mut self, error: E, was_probe: bool, now: Instant, jitter: u8) -> bool {
        let (since, failures) = match &self.open {
            Some(_) if !was_probe => return false,
            Some(open) => (open.since, open.failures),
            None => (now, 0),
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
        let pause = pause / 2 + pause.mul_f64(f64::from(jitter) / 512.0);
        self.open = Some(Open { since, failures: failures + 1, probe_at: now + pause, probing: false, error });
        failures == 0
    }

    /// The call of a [`Permit::Probe`] was given up before it had a result: the next one may probe.
    pub fn probe_cancelled(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }
}

impl<E: Clone> Default for Breaker<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn closed_until_a_failure_and_again_after_a_success() {
        let (now, mut breaker) = (Instant::now(), Breaker::new());
        assert_eq!(breaker.permit(now), Permit::Call);
        assert_eq!(breaker.succeeded(now), None);
        assert!(breaker.failed("down", false, now, 0), "it opens");
        assert_eq!(breaker.permit(now), Permit::Open("down"));
        assert_eq!(breaker.permit(now + SECOND), Permit::Probe);
        assert_eq!(breaker.succeeded(now + 2 * SECOND), Some(2 * SECOND));
        assert_eq!(breaker.permit(now + 2 * SECOND), Permit::Call);
    }

    #[test]
    fn one_probe_at_a_time() {
        let (now, mut breaker) = (Instant::now(), Breaker::new());
        breaker.failed("down", false, now, 0);
        assert_eq!(breaker.permit(now + SECOND), Permit::Probe);
        assert_eq!(breaker.permit(now + SECOND), Permit::Open("down"));
        breaker.probe_cancelled();
        assert_eq!(breaker.permit(now + SECOND), Permit::Probe);
        assert!(!breaker.failed("still down", true, now + SECOND, 0), "it was open before");
        assert_eq!(breaker.permit(now + SECOND), Permit::Open("still down"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        for (failures, shortest_ms) in [(1, 500), (2, 1_000), (3, 2_000), (6, 15_000), (60, 15_000)] {
            for (jitter, pause_ms) in [(0, shortest_ms), (128, shortest_ms * 3 / 2)] {
                let (now, mut breaker) = (Instant::now(), Breaker::new());
                for _ in 0..failures {
                    breaker.failed("down", true, now, jitter);
                }
                let pause = Duration::from_millis(pause_ms);
                assert_eq!(breaker.permit(now + pause - Duration::from_millis(1)), Permit::Open("down"));
                assert_eq!(breaker.permit(now + pause), Permit::Probe, "{failures} failures, jitter {jitter}");
            }
        }
    }

    #[test]
    fn calls_that_were_under_way_when_it_opened_count_too() {
        let (now, mut breaker) = (Instant::now(), Breaker::new());
        assert_eq!((breaker.permit(now), breaker.permit(now)), (Permit::Call, Permit::Call));
        for _ in 0..16 {
            breaker.failed("down", false, now, 0);
        }
        assert_eq!(breaker.permit(now + SECOND / 2), Permit::Probe, "they do not make the pause longer");
        breaker.succeeded(now);
        assert_eq!(breaker.permit(now), Permit::Call);
    }
}
