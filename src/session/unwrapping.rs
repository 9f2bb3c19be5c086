//! Having data keys unwrapped that no value waits for yet.

use std::rc::Rc;

use envelope_core::cache::CachedKey;
use envelope_core::format::Head;
use envelope_core::policy::{Ask, Step};
use envelope_core::request::Reply;

use super::surroundings::Here;
use super::{asking, with_policy};
use crate::ask::{self, Pending};
use crate::error::Error;

/// A data key that is being unwrapped. Dropping it gives that up.
pub struct Unwrapping {
    ask: Ask,
    /// The request.
    pub pending: Pending,
}

impl Unwrapping {
    /// Starts to have the data key of a value unwrapped.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for.
    pub fn start(head: &Head<'_>) -> Result<Self, Error> {
        let step = with_policy(|policy| policy.unwrap(head, &Here))?;
        Ok(Self::of(step)?.expect("it is asked for, whether or not the session has it"))
    }

    /// Goes on with the answer: `None` if the session has the data key now, else the value's next wrapped key is asked about.
    ///
    /// # Errors
    /// Why it could not be unwrapped.
    pub fn finish(self, reply: Result<Reply, Error>) -> Result<Option<Self>, Error> {
        Self::of(asking::tell(self.ask, reply)?)
    }

    /// Waits for the answers, and keeps the data key.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn wait(mut self) -> Result<Rc<CachedKey>, Error> {
        let reply = ask::wait(&mut self.pending);
        asking::drive(asking::tell(self.ask, reply)?)
    }

    /// What was started.
    pub fn of_started((ask, pending): (Ask, Pending)) -> Self {
        Self { ask, pending }
    }

    fn of(step: Step<Pending>) -> Result<Option<Self>, Error> {
        Ok(match step {
            Step::Ready(_) => None,
            Step::Ask(ask) => Some(Self::of_started(asking::start_for(ask)?)),
            Step::Await(pending, ask) => Some(Self { ask, pending }),
        })
    }
}
