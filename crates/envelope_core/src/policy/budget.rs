//! How many calls to key providers the current statement, transaction and session have made: to see it, and to stop a runaway
//! statement.

use super::surroundings::{PolicyError, StatementId, Surroundings};
use crate::request::Calls;

/// Calls that somebody waited for, and what may become one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    of: StatementId,
    statement: u64,
    transaction: u64,
    session: u64,
}

impl Budget {
    /// The calls of the current statement, of the current transaction and of the session.
    #[must_use]
    pub fn calls(&mut self, world: &impl Surroundings) -> [u64; 3] {
        self.follow(world);
        [self.statement, self.transaction, self.session]
    }

    /// Which calls the statement may still cause. One that has a limit causes none ahead of its need.
    #[must_use]
    pub fn allowed(&mut self, world: &impl Surroundings) -> Calls {
        self.follow(world);
        match world.max_calls() {
            None => Calls::Ahead,
            Some(limit) if self.statement < limit => Calls::Needed,
            Some(_) => Calls::None,
        }
    }

    /// Checks that the statement may cause a call.
    ///
    /// # Errors
    /// [`PolicyError::TooManyCalls`].
    pub fn check(&mut self, world: &impl Surroundings) -> Result<(), PolicyError> {
        match self.allowed(world) {
            Calls::None => Err(PolicyError::TooManyCalls(world.max_calls().unwrap_or_default())),
            Calls::Ahead | Calls::Needed => Ok(()),
        }
    }

    /// Counts a call that the statement waits for, or what may become one.
    pub fn count(&mut self, world: &impl Surroundings) {
        self.change(world, |calls| calls + 1);
    }

    /// Takes a call back that was not made: the broker had the answer, or a limit or a circuit breaker kept it from being made.
    pub fn uncount(&mut self, world: &impl Surroundings) {
        self.change(world, |calls| calls.saturating_sub(1));
    }

    fn change(&mut self, world: &impl Surroundings, change: impl Fn(u64) -> u64) {
        self.follow(world);
        for calls in [&mut self.statement, &mut self.transaction, &mut self.session] {
            *calls = change(*calls);
        }
    }

    /// A new statement, and a new transaction, begin at zero.
    fn follow(&mut self, world: &impl Surroundings) {
        let now = world.statement();
        if now.statement != self.of.statement {
            self.statement = 0;
        }
        if now.transaction != self.of.transaction {
            self.transaction = 0;
        }
        self.of = now;
    }
}
