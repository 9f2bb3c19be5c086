//! Single flight: whoever asks the same while a call is under way waits for that one. A call that nobody waits for any more is
//! dropped, which cancels it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;

use envelope_core::request::KmsError;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared, WeakShared};

/// A call that any number of sessions wait for.
pub type Flight<T> = Shared<LocalBoxFuture<'static, Result<T, KmsError>>>;

/// The same, of one that does not wait.
type WeakFlight<T> = WeakShared<LocalBoxFuture<'static, Result<T, KmsError>>>;

/// The calls under way, by what they ask.
pub struct Flights<N, T: Clone>(RefCell<HashMap<N, WeakFlight<T>>>);

impl<N: Clone + Eq + Hash, T: Clone + 'static> Flights<N, T> {
    /// None under way.
    #[must_use]
    pub fn new() -> Self {
        Self(RefCell::default())
    }

    /// Whether there is a call of this name.
    #[must_use]
    pub fn is_under_way(&self, name: &N) -> bool {
        self.flight(name).is_some()
    }

    /// Joins the call of this name, or begins it.
    pub fn join<F>(&self, name: &N, begin: impl FnOnce(N) -> F) -> Flight<T>
    where
        F: Future<Output = Result<T, KmsError>> + 'static,
    {
        if let Some(flight) = self.flight(name) {
            return flight;
        }
        let flight = begin(name.clone()).boxed_local().shared();
        let mut flights = self.0.borrow_mut();
        flights.retain(|_, flight| flight.upgrade().is_some_and(|flight| flight.peek().is_none()));
        flights.extend(flight.downgrade().map(|weak| (name.clone(), weak)));
        flight
    }

    /// Nobody joins the calls under way any more. Those who wait for them go on.
    pub fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    /// One that has ended is not joined: whoever asks now wants to know how it is now.
    fn flight(&self, name: &N) -> Option<Flight<T>> {
        self.0.borrow().get(name).and_then(WeakShared::upgrade).filter(|flight| flight.peek().is_none())
    }
}

impl<N: Clone + Eq + Hash, T: Clone + 'static> Default for Flights<N, T> {
    fn default() -> Self {
        Self::new()
    }
}
