//! How many calls to key providers the current statement, transaction and session have made: to see it, and to stop a runaway
//! statement.

use super::surroundings::{PolicyError, StatementId, Surroundings};
use crate::request::Calls;

/// Calls, and what may become one: each counts to the statement that caused it, whoever waits for it.
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

    /// Which calls the statement may still cause. One that has a limit causes none ahead of its need, and one at a time.
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

    /// Counts what may become a call of this statement.
    pub fn count(&mut self, world: &impl Surroundings) {
        self.follow(world);
        for calls in [&mut self.statement, &mut self.transaction, &mut self.session] {
            *calls += 1;
        }
    }

    /// Takes back what this statement counted, since no call was made.
    pub fn uncount(&mut self, world: &impl Surroundings) {
        self.settle(world.statement(), 0, world);
    }

    /// What was counted in a statement came to so many calls: none if the broker had the answer, or a limit or a circuit breaker
    /// kept it from being made; more if the broker has looked ahead.
    pub fn settle(&mut self, of: StatementId, calls: u32, world: &impl Surroundings) {
        self.follow(world);
        let is_of = [of == self.of, of.transaction == self.of.transaction, true];
        for (counted, is_of) in [&mut self.statement, &mut self.transaction, &mut self.session].into_iter().zip(is_of) {
            if is_of {
                *counted = (*counted + u64::from(calls)).saturating_sub(1);
            }
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
