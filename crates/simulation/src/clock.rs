//! The simulated clock of a history.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How far a session's coarse clock is behind.
pub const TICK: Duration = Duration::from_millis(10);

/// The simulated time.
pub fn now() -> Instant {
    NOW.get().expect("a history runs")
}

/// A history begins, where the one before on this thread ended.
pub fn start() {
    NOW.set(Some(NOW.get().unwrap_or_else(Instant::now)));
}

/// Time passes.
pub fn advance(time: Duration) {
    NOW.set(Some(now() + time));
}
