//! What is kept at a place of a statement that calls a SQL function: the one meaning of `fn_extra`.

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

use pgrx::PgMemoryContexts;
use pgrx::pg_sys;

use crate::error::Error;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;
/// The rest of a large value is read in order, which the processor notices.
#[cfg(target_arch = "x86_64")]
const PREFETCHED_LINES: usize = 24;

/// What is kept from one call of a place to the next.
#[repr(C)]
pub struct CallSite<T> {
    /// Says what `T` is, to whoever has the address of any `CallSite` only. The first field.
    kept_type: TypeId,
    /// What was made of the arguments.
    kept: RefCell<Option<Rc<T>>>,
    /// Where the value of the call before was: an address to reckon with, not to read from.
    value_before: Cell<usize>,
}

impl<T: 'static> CallSite<T> {
    /// That of a place, from its second call on: one that is called once keeps nothing, and pays for nothing.
    ///
    /// # Panics
    /// If the SQL function at the place keeps something else, too: a mistake of the function's.
    ///
    /// # Safety
    /// `flinfo` describes a function of this library at a place that calls it, and nobody else sets its `fn_extra`.
    #[inline]
    pub unsafe fn of(flinfo: &mut pg_sys::FmgrInfo) -> Option<&Self> {
        /// What `fn_extra` points to after the first call.
        static CALLED_ONCE: u8 = 0;
        let called_once: *mut c_void = (&raw const CALLED_ONCE).cast_mut().cast();
        if flinfo.fn_extra.is_null() {
            flinfo.fn_extra = called_once;
            return None;
        }
        if flinfo.fn_extra == called_once {
            let new = Self { kept_type: TypeId::of::<T>(), kept: RefCell::new(None), value_before: Cell::new(0) };
            // It is dropped together with `fn_extra`, as both are in this memory context.
            flinfo.fn_extra = PgMemoryContexts::For(flinfo.fn_mcxt).leak_and_drop_on_delete(new).cast();
        }
        // SAFETY: by contract this function alone sets `fn_extra`, and to a CallSite that lives as long as `flinfo`. All of them
        // begin with the type identifier, whatever their type.
        assert!(unsafe { *flinfo.fn_extra.cast::<TypeId>() } == TypeId::of::<T>());
        // SAFETY: so it is one of this type.
        Some(unsafe { &*flinfo.fn_extra.cast() })
    }

    /// What was kept, if it `fits`; else what `make` makes, from now on.
    ///
    /// # Errors
    /// What `make` returns.
    #[inline]
    pub fn keep(&self, fits: impl FnOnce(&T) -> bool, make: impl FnOnce() -> Result<T, Error>) -> Result<Rc<T>, Error> {
        if let Some(earlier) = self.kept.borrow().as_ref().filter(|earlier| fits(earlier)) {
            return Ok(Rc::clone(earlier));
        }
        let made = Rc::new(make()?);
        self.kept.replace(Some(Rc::clone(&made)));
        Ok(made)
    }

    /// See [`crate::pg::function_call::FunctionCall::prefetch`].
    pub fn prefetch(call_site: Option<&Self>, value: &[u8]) {
        let here = value.as_ptr();
        prefetch(here, value.len());
        if let Some(call_site) = call_site {
            let step = here.addr().wrapping_sub(call_site.value_before.replace(here.addr()));
            if step.wrapping_add(PAGE_BYTES) < 2 * PAGE_BYTES {
                prefetch(here.wrapping_add(step), value.len());
            }
        }
    }
}

/// Has the processor fetch the first bytes at an address, all at once: else it waits for one cache line after the other, as each
/// says where the next thing to read is. Of addresses where nothing is it fetches nothing.
fn prefetch(address: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.div_ceil(CACHE_LINE_BYTES).min(PREFETCHED_LINES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing that the program sees and cannot fault; every x86-64 has it (SSE).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(line * CACHE_LINE_BYTES).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes);
}
