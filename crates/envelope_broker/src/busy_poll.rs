//! Busy polling: looking for a message again and again before going to sleep. What the broker has in memory it answers within
//! microseconds; to sleep until then, and to be woken by another processor, takes longer than that, in virtual machines ten times as
//! long. Who asks for one data key does not poll, and who is answered by a key provider does so once.

use std::cell::Cell;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::thread::sched_yield;

/// Some answers from memory, or what a session does with them.
const POLLED: Duration = Duration::from_micros(100);

/// On a single one, whoever polls keeps the other end from going on.
static HAS_SEVERAL_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| available_parallelism().is_ok_and(|processors| processors.get() > 1));

/// How one end of a connection waits for messages.
#[derive(Default)]
pub struct BusyPoll {
    /// The message before came soon.
    pays: Cell<bool>,
}

impl BusyPoll {
    /// As at first: the next message is not polled for.
    #[must_use]
    pub const fn new() -> Self {
        Self { pays: Cell::new(false) }
    }

    /// Begins to wait for a message.
    #[must_use]
    pub fn begin(&self) -> Wait<'_> {
        Wait { poll: self, began: Instant::now(), is_polling: self.pays.get() && *HAS_SEVERAL_PROCESSORS }
    }
}

/// A wait for one message.
pub struct Wait<'a> {
    poll: &'a BusyPoll,
    began: Instant,
    is_polling: bool,
}

impl Wait<'_> {
    /// Whether to look for it again, and not to go to sleep yet. Gives way to whoever wants the processor before that.
    #[must_use]
    pub fn polls_again(&self) -> bool {
        let is_polling = self.is_polling && self.began.elapsed() < POLLED;
        if is_polling {
            sched_yield();
        }
        is_polling
    }

    /// The message has come.
    pub fn end(self) {
        self.poll.pays.set(self.began.elapsed() < POLLED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the wait behind one that began at this time polls.
    fn polls_after(poll: &BusyPoll, began: Option<Instant>) -> bool {
        let began = began.expect("the clock goes as far");
        Wait { began, ..poll.begin() }.end();
        poll.begin().is_polling
    }

    #[test]
    fn who_was_answered_soon_polls_the_next_time() {
        let poll = BusyPoll::new();
        assert!(!poll.begin().is_polling, "one message says nothing");
        // No machine is too slow for a wait that began in an hour: it took no time.
        let soon = || Instant::now().checked_add(Duration::from_secs(3_600));
        assert_eq!(polls_after(&poll, soon()), *HAS_SEVERAL_PROCESSORS);
        assert!(!polls_after(&poll, Instant::now().checked_sub(POLLED)), "it was in vain");
        assert_eq!(polls_after(&poll, soon()), *HAS_SEVERAL_PROCESSORS);
    }

    #[test]
    fn nobody_polls_for_long() {
        let poll = BusyPoll { pays: Cell::new(true) };
        let wait = poll.begin();
        std::thread::sleep(POLLED);
        assert!(!wait.polls_again());
    }
}
