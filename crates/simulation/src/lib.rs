//! A deterministic simulation: sessions that drive the core's policy, the real broker without its sockets, a KMS that is slow, down,
//! throttling, denying or lying, and a clock that jumps. One seed is one history.
//!
//! - [`run`]: plays a history
//! - `world`: the steps, and the sessions
//! - [`fleet`]: the calls of many servers at rest
//! - `clock`: the time
//! - `kms`: the KMS, and the truth about what it has said
//! - `oracle`: the invariants, checked from outside at each value

mod clock;
pub mod fleet;
mod kms;
mod oracle;
mod world;

use std::fmt;

/// A fault that the simulation plants between a session and its policy, to show that the invariants catch it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// A refusal is taken for an outage, so that data keys serve on.
    ServeAfterRefusal,
    /// A session does not see one flush in two.
    MissFlush,
    /// A statement may make twice as many calls as it may.
    DoubleBudget,
    /// Data keys serve stale for twice as long.
    StalePastBound,
    /// A change of the allowed list is not noticed.
    OtherAllowedList,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The history.
    pub seed: u64,
    /// After so many steps.
    pub step: u64,
    /// What was violated.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, what } = self;
        write!(formatter, "SIM_SEED={seed} step {step}: {what}")
    }
}

/// What happened in a history: that it has met what it is there for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Steps played.
    pub steps: u64,
    /// Values sealed.
    pub sealed: u64,
    /// Values opened.
    pub opened: u64,
    /// Values that a data key past its time was used for.
    pub stale: u64,
    /// Values that were refused for whatever reason.
    pub failed: u64,
    /// Calls that reached KMS.
    pub calls: u64,
    /// Calls that sessions were told of, and count to their statements.
    pub calls_told: u64,
    /// Calls that KMS refused.
    pub refusals: u64,
    /// Flushes by everybody.
    pub flushes: u64,
    /// Background refreshes.
    pub refreshes: u64,
    /// Statements that ran out of calls.
    pub out_of_calls: u64,
    /// Values stopped by the allowed list.
    pub not_allowed: u64,
}

impl Report {
    /// Adds another history's.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.sealed += other.sealed;
        self.opened += other.opened;
        self.stale += other.stale;
        self.failed += other.failed;
        self.calls += other.calls;
        self.calls_told += other.calls_told;
        self.refusals += other.refusals;
        self.flushes += other.flushes;
        self.refreshes += other.refreshes;
        self.out_of_calls += other.out_of_calls;
        self.not_allowed += other.not_allowed;
    }
}

/// Plays the history of a seed for `steps` steps, and has all values opened in the end.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64, steps: u64, mistake: Option<Mistake>) -> Result<Report, Violation> {
    world::World::new(seed, mistake).play(steps)
}
