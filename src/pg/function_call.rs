//! One call of a SQL function: its arguments and its result.

use std::ffi::CStr;
use std::rc::Rc;

use pgrx::PgMemoryContexts;
use pgrx::datum::{Array, FromDatum};
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};

use crate::error::Error;
use crate::pg::aggregate::AggregateState;
use crate::pg::call_site::CallSite;
use crate::pg::jsonb::JsonbDatum;
use crate::pg::scalars::{Scalar, ScalarType};
use crate::pg::varlena::VarlenaDatum;

/// Exports a SQL function: `fn body(&FunctionCall) -> Result<Option<Datum>, Error>`, where `None` is NULL.
///
/// This is where the two sides meet that no compiler compares: `body` may read its arguments only as the types that sql/
/// declares for the symbol, and must return the type that it declares.
macro_rules! sql_functions {
    ($($symbol:ident, $finfo:ident => $body:path;)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls with the fcinfo of this call, whose arguments are of the types that sql/ declares. Nothing
            // in this frame is to be dropped.
            unsafe {
                // Written here, where it is read: what a guard returns is copied at once, in other pieces than it was written.
                let mut outcome = Ok(pgrx::pg_sys::Datum::null());
                pgrx::pg_sys::submodules::panic::pgrx_extern_c_guard(|| {
                    let call = $crate::pg::function_call::FunctionCall::new(fcinfo);
                    outcome = match $body(&call) {
                        Ok(result) => Ok(call.finish(result)),
                        Err(error) => Err($crate::pg::report::Prepared::new(&error.report())),
                    };
                });
                match outcome {
                    Ok(datum) => datum,
                    Err(report) => report.raise(),
                }
            }
        }
    )*};
}
pub(crate) use sql_functions;

/// One call of a SQL function.
pub struct FunctionCall {
    fcinfo: FunctionCallInfo,
}

impl FunctionCall {
    /// # Safety
    /// `fcinfo` is the one that PostgreSQL called the function with, and the `FunctionCall` does not outlive that call. The arguments
    /// are of the types that the function reads them as; an internal one is its aggregate's state.
    pub unsafe fn new(fcinfo: FunctionCallInfo) -> Self {
        Self { fcinfo }
    }

    /// The raw call.
    pub fn fcinfo(&self) -> FunctionCallInfo {
        self.fcinfo
    }

    /// How many arguments the overload that was called has.
    pub fn arguments(&self) -> usize {
        // SAFETY: `new` was given a live fcinfo.
        unsafe { (*self.fcinfo).nargs as usize }
    }

    /// An argument, unless it is NULL.
    pub fn datum(&self, index: usize) -> Option<Datum> {
        assert!(index < self.arguments());
        // SAFETY: PostgreSQL fills `nargs` arguments, and `index` is below that.
        let argument = unsafe { (*self.fcinfo).args.as_slice(self.arguments())[index] };
        (!argument.isnull).then_some(argument.value)
    }

    /// A text or bytea argument, unless it is NULL.
    pub fn varlena(&self, index: usize) -> Option<VarlenaDatum<'_>> {
        // SAFETY: by the contract of `new` the argument is a text or bytea, and PostgreSQL keeps it for the call.
        self.datum(index).map(|datum| unsafe { VarlenaDatum::new(datum) })
    }

    /// The bytes of a text or bytea argument, unless it is NULL.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        self.varlena(index).map(VarlenaDatum::bytes)
    }

    /// The JSON text of a jsonb argument in the database's encoding, unless it is NULL.
    pub fn jsonb_text(&self, index: usize) -> Option<&CStr> {
        // SAFETY: by the contract of `new` the argument is a jsonb, and PostgreSQL keeps it for the call.
        self.datum(index).map(|datum| unsafe { JsonbDatum::new(datum) }.text())
    }

    /// A scalar argument, unless it is NULL.
    #[inline]
    pub fn scalar(&self, index: usize, scalar_type: ScalarType) -> Option<Scalar<'_>> {
        // SAFETY: by the contract of `new` the argument is of the type, and PostgreSQL keeps it for the call.
        self.datum(index).map(|datum| unsafe { Scalar::new(datum, scalar_type) })
    }

    /// An integer argument, unless it is NULL.
    pub fn integer(&self, index: usize) -> Option<i32> {
        self.datum(index).map(|datum| datum.value() as i32)
    }

    /// A bigint argument, unless it is NULL.
    pub fn bigint(&self, index: usize) -> Option<i64> {
        self.datum(index).map(|datum| datum.value() as i64)
    }

    /// A smallint[] argument, unless it is NULL.
    pub fn smallint_array(&self, index: usize) -> Option<Array<'_, i16>> {
        self.array(index)
    }

    /// An integer[] argument, unless it is NULL.
    pub fn integer_array(&self, index: usize) -> Option<Array<'_, i32>> {
        self.array(index)
    }

    /// A bytea[] or text[] argument, unless it is NULL, whose elements are not copied.
    pub fn bytea_array(&self, index: usize) -> Option<Array<'_, &[u8]>> {
        self.array(index)
    }

    fn array<'a, T>(&'a self, index: usize) -> Option<Array<'a, T>>
    where
        Array<'a, T>: FromDatum,
    {
        // SAFETY: by the contract of `new` the argument is an array of this type of elements.
        self.datum(index).and_then(|datum| unsafe { Array::from_datum(datum, false) })
    }

    /// The state of the aggregation that the first argument, an internal one, is; `None` if there is none yet.
    pub fn aggregate_state(&self) -> Option<AggregateState<'_>> {
        // SAFETY: by the contract of `new` it was made by `new_aggregate_state`; PostgreSQL keeps it for the call.
        self.datum(0).map(|datum| unsafe { AggregateState::new(datum) })
    }

    /// Keeps the state of an aggregation until it ends, in whatever way.
    pub fn new_aggregate_state<T: 'static>(&self, state: T) -> AggregateState<'_> {
        let mut context = std::ptr::null_mut();
        // SAFETY: `new` was given a live fcinfo.
        let kind = unsafe { pg_sys::AggCheckCallContext(self.fcinfo, &mut context) };
        assert!(kind != 0, "sql/ uses the function in an aggregate only");
        // SAFETY: the context, and what is leaked into it, stays until the aggregation ends.
        unsafe { AggregateState::keep(PgMemoryContexts::For(context), state) }
    }

    /// What was made of the arguments in an earlier call from the same place of a statement, if it `fits` those of this call;
    /// else what `make` makes of them. A place that is called once keeps nothing.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn keep<T: 'static>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Rc<T>, Error> {
        match self.call_site::<T>() {
            Some(call_site) => call_site.keep(fits, make),
            None => make().map(Rc::new),
        }
    }

    /// Has the processor fetch an argument's value, and the one that a scan will bring next, which it has time for while this
    /// one is worked on: in a page the rows stand one in front of the other, all about as far.
    pub fn prefetch(&self, value: &[u8]) {
        CallSite::<()>::prefetch(self.call_site(), value);
    }

    #[inline]
    fn call_site<T: 'static>(&self) -> Option<&CallSite<T>> {
        // SAFETY: `new` was given a live fcinfo; its flinfo is NULL, or that of this function at this place of a statement.
        unsafe { (*self.fcinfo).flinfo.as_mut().and_then(|flinfo| CallSite::of(flinfo)) }
    }

    /// The result, or NULL.
    pub fn finish(&self, result: Option<Datum>) -> Datum {
        // SAFETY: `new` was given a live fcinfo.
        unsafe { (*self.fcinfo).isnull = result.is_none() };
        result.unwrap_or(Datum::null())
    }
}
