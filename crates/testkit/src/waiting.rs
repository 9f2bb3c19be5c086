//! Waiting for what another process does, and doing something for a while: the two reasons for which a test may sleep.

use std::thread;
use std::time::{Duration, Instant};

/// Several times what anything takes that a test waits for: a broker that failed a session is left alone for half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for something that another process does; panics if it does not come about in two minutes.
#[track_caller]
pub fn wait_until(what: &str, reached: impl FnMut() -> bool) {
    assert!(is_reached_within(PATIENCE, reached), "waited in vain until {what}");
}

/// Waits for something that another process does; says whether it came about in time.
pub fn is_reached_within(time: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if reached() {
            return true;
        }
        let elapsed = started.elapsed();
        if elapsed >= time {
            return false;
        }
        // What takes long is not looked at all the time: others want the processor.
        thread::sleep((elapsed / 20).clamp(Duration::from_millis(2), Duration::from_millis(50)));
    }
}

/// Does something again and again with a pause behind it, until the time is over.
pub fn keep_doing(time: Duration, pause: Duration, mut work: impl FnMut()) {
    let started = Instant::now();
    while started.elapsed() < time {
        work();
        thread::sleep(pause);
    }
}
