//! What is the same for all providers of a process, one after the other.

use crate::aliases::Aliases;
use crate::event::Events;
use crate::limiter::Limiter;
use crate::statistics::Statistics;

/// What outlives the providers of some settings: those that follow them go on with it. A clone shares it.
#[derive(Clone, Default)]
pub struct Lasting {
    /// What an administrator wants to see.
    pub events: Events,
    /// Counts of the calls.
    pub statistics: Statistics,
    /// Which keys aliases stood for.
    pub aliases: Aliases,
    /// How many calls may be made.
    pub limiter: Limiter,
}
