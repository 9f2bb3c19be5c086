//! The state of an aggregation between the calls of its functions.

use std::any::Any;
use std::cell::Cell;

use pgrx::PgMemoryContexts;
use pgrx::pg_sys::Datum;

use crate::error::Error;

/// The state of an aggregation.
#[derive(Clone, Copy)]
pub struct AggregateState<'a>(&'a Cell<Option<Box<dyn Any>>>);

impl<'a> AggregateState<'a> {
    /// # Safety
    /// `datum` is from [`Self::datum`], of an aggregation that does not end before `'a`.
    pub unsafe fn new(datum: Datum) -> Self {
        // SAFETY: by contract it is the address of such a cell.
        Self(unsafe { &*datum.cast_mut_ptr() })
    }

    /// Keeps a state as long as a memory context.
    ///
    /// # Safety
    /// The context does not end before `'a`.
    pub unsafe fn keep<T: 'static>(mut context: PgMemoryContexts, state: T) -> Self {
        let cell: Cell<Option<Box<dyn Any>>> = Cell::new(Some(Box::new(state)));
        // SAFETY: the cell lives as long as the context.
        Self(unsafe { &*context.leak_and_drop_on_delete(cell) })
    }

    /// For PostgreSQL, which gives it to the next call.
    pub fn datum(self) -> Datum {
        Datum::from(std::ptr::from_ref(self.0).cast_mut())
    }

    /// Uses the state. It is taken out meanwhile: an error that PostgreSQL raises then drops it, and all that it holds.
    ///
    /// # Errors
    /// What `use_state` returns.
    pub fn with<T: 'static, R>(self, use_state: impl FnOnce(&mut T) -> Result<R, Error>) -> Result<R, Error> {
        let mut state =
            self.0.take().expect("the aggregate is called from one place at a time, and ends with an error");
        let result = use_state(state.downcast_mut().expect("an aggregate has one type of state"));
        self.0.set(Some(state));
        result
    }
}
