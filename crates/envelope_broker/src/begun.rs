//! How many calls to providers a request has begun, so that they count to the statement that caused them.

use std::cell::Cell;
use std::future::Future;

use envelope_core::request::{Calls, KmsError, Terms};
use futures_util::future::LocalBoxFuture;

/// The calls of one request. One that others have begun, and that it joins, is none of its own.
#[derive(Default)]
pub struct Begun(Cell<u32>);

impl Begun {
    /// How many there are.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.0.get()
    }

    /// One more.
    pub fn one(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// Whether the request may begin a call that it needs.
    #[must_use]
    pub fn may_begin(&self, terms: &Terms) -> bool {
        match terms.calls {
            Calls::Ahead => true,
            Calls::Needed => self.calls() == 0,
            Calls::None => false,
        }
    }

    /// Begins a call, or joins one, and waits for it. One that an open circuit breaker has kept from being made is none.
    ///
    /// # Errors
    /// What the provider said.
    pub async fn wait<T, F>(&self, begin: impl FnOnce() -> F) -> Result<T, KmsError>
    where
        F: Future<Output = Result<T, KmsError>>,
    {
        let before = self.calls();
        let result = begin().await;
        if result.as_ref().is_err_and(|error| !error.was_made()) {
            self.0.set(before);
        }
        result
    }

    /// As [`Self::wait`], for a call that nobody else joins. Boxed: a call has tens of kB, which every request would carry and
    /// copy that is answered from memory.
    ///
    /// # Errors
    /// What the provider said.
    pub async fn own<T>(&self, call: LocalBoxFuture<'_, Result<T, KmsError>>) -> Result<T, KmsError> {
        self.wait(|| {
            self.one();
            call
        })
        .await
    }
}
