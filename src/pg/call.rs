//! Arguments and results of SQL functions: PostgreSQL's datums as Rust slices, without copies.

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

use envelope_core::error::ValueError;
use envelope_core::format::{Head, HeadError};
use pgrx::PgMemoryContexts;
use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};

use crate::error::Error;

/// PostgreSQL's MaxAllocSize (utils/memutils.h): no value is larger.
const MAX_ALLOC_BYTES: usize = 0x3fff_ffff;
/// Bytes of a value's head that are read first: enough for all but large encryption contexts.
const FIRST_SLICE_BYTES: usize = 512;
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;
/// The rest of a large value is read in order, which the processor notices.
#[cfg(target_arch = "x86_64")]
const PREFETCHED_LINES: usize = 24;

unsafe extern "C" {
    /// pgrx's own declaration catches errors by sigsetjmp. With a valid size and MCXT_ALLOC_NO_OOM this one raises none, and
    /// it is called for each value.
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}
const MCXT_ALLOC_NO_OOM: c_int = pg_sys::MCXT_ALLOC_NO_OOM as c_int;

/// Exports a SQL function: `fn body(&Call) -> Result<Option<Datum>, Error>`, where `None` is NULL.
macro_rules! sql_functions {
    ($($symbol:ident, $finfo:ident => $body:path;)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls with the fcinfo of this call, whose arguments are of the types that sql/ declares.
            let call = unsafe { $crate::pg::call::Call::new(fcinfo) };
            let result = $crate::error::OrRaise::or_raise($body(&call));
            call.finish(result)
        }
    )*};
}
pub(crate) use sql_functions;

/// One call of a SQL function.
pub struct Call {
    fcinfo: FunctionCallInfo,
}

impl Call {
    /// # Safety
    /// `fcinfo` is the one that PostgreSQL called the function with, and the `Call` does not outlive that call.
    pub unsafe fn new(fcinfo: FunctionCallInfo) -> Self {
        Self { fcinfo }
    }

    /// The raw call, for functions that return a row.
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

    /// The bytes of a text or bytea argument, unless it is NULL.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        self.datum(index).map(bytes_of)
    }

    /// Keeps the state of an aggregate until the aggregation ends, in whatever way.
    pub fn aggregate_state<T>(&self, state: T) -> Datum {
        let mut context = std::ptr::null_mut();
        // SAFETY: `new` was given a live fcinfo.
        let kind = unsafe { pg_sys::AggCheckCallContext(self.fcinfo, &mut context) };
        assert!(kind != 0, "sql/ uses the function in an aggregate only");
        Datum::from(PgMemoryContexts::For(context).leak_and_drop_on_delete(state))
    }

    /// What was made of the arguments in an earlier call from the same place of a statement, if it `fits` those of this call;
    /// else what `make` makes of them. A place that is called once keeps nothing.
    ///
    /// All calls of one SQL function keep the same type.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn keep<T: 'static>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Rc<T>, Error> {
        /// What `fn_extra` points to after the first call.
        static CALLED_ONCE: u8 = 0;
        let called_once: *mut c_void = (&raw const CALLED_ONCE).cast_mut().cast();
        // SAFETY: `new` was given a live fcinfo; its flinfo is NULL, or describes this place, and nobody else has it now.
        let Some(place) = (unsafe { (*self.fcinfo).flinfo.as_mut() }) else {
            return make().map(Rc::new);
        };
        if place.fn_extra.is_null() {
            place.fn_extra = called_once;
            return make().map(Rc::new);
        }
        if place.fn_extra == called_once {
            let kept: RefCell<Option<Rc<T>>> = RefCell::new(None);
            // It is dropped together with `fn_extra`, as both are in this memory context.
            place.fn_extra = PgMemoryContexts::For(place.fn_mcxt).leak_and_drop_on_delete(kept).cast();
        }
        // SAFETY: this function alone sets `fn_extra`, and always for the same SQL function and type.
        let kept: &RefCell<Option<Rc<T>>> = unsafe { &*place.fn_extra.cast() };
        if let Some(earlier) = kept.borrow().as_ref().filter(|earlier| fits(earlier)) {
            return Ok(Rc::clone(earlier));
        }
        let made = Rc::new(make()?);
        kept.replace(Some(Rc::clone(&made)));
        Ok(made)
    }

    /// Has the processor fetch an argument's value, and the one that a scan will bring next, which it has time for while this
    /// one is worked on: in a page the rows stand one in front of the other, all about as far.
    ///
    /// For SQL functions that do not [`Self::keep`] anything.
    pub fn prefetch(&self, value: &[u8]) {
        let here = value.as_ptr();
        prefetch(here, value.len());
        // SAFETY: `new` was given a live fcinfo; its flinfo is NULL, or describes this place, and nobody else has it now.
        if let Some(place) = unsafe { (*self.fcinfo).flinfo.as_mut() } {
            // Where the value of the call before was: an address to reckon with, not to read from.
            let before = std::mem::replace(&mut place.fn_extra, here.cast_mut().cast());
            let step = here.addr().wrapping_sub(before.addr());
            if step.wrapping_add(PAGE_BYTES) < 2 * PAGE_BYTES {
                prefetch(here.wrapping_add(step), value.len());
            }
        }
    }

    /// The result, or NULL.
    pub fn finish(&self, result: Option<Datum>) -> Datum {
        // SAFETY: `new` was given a live fcinfo.
        unsafe { (*self.fcinfo).isnull = result.is_none() };
        result.unwrap_or(Datum::null())
    }
}

/// The value itself if it is neither compressed nor in a TOAST table. PostgreSQL's functions check that too, but a call into
/// PostgreSQL that can fail has to be guarded by sigsetjmp.
///
/// # Safety
/// `datum` is a live value of a varlena type.
unsafe fn inline(datum: Datum) -> Option<*const pg_sys::varlena> {
    let varlena = datum.cast_mut_ptr::<pg_sys::varlena>().cast_const();
    // SAFETY: reads the header of a live value.
    let is_toasted = unsafe { pgrx::varlena::varatt_is_4b_c(varlena) || pgrx::varlena::varatt_is_1b_e(varlena) };
    (!is_toasted).then_some(varlena)
}

/// The bytes of a text or bytea.
pub fn bytes_of<'a>(value: Datum) -> &'a [u8] {
    // SAFETY: callers pass a datum of a varlena type that is not NULL. It, or its detoasted copy, is in a memory context
    // that PostgreSQL resets after the SQL function's call.
    unsafe {
        varlena_bytes(match inline(value) {
            Some(varlena) => varlena,
            None => pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr()),
        })
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

/// Whether two values of a variable-length type are the same, bit for bit. Only values of the same size that are stored in
/// different places are detoasted to find out.
pub fn is_same_value(one: Datum, other: Datum) -> bool {
    let image = |value: Datum| {
        let varlena = value.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: callers pass datums of a variable-length type that are not NULL, so the size is that of the live value,
        // or of the pointer to its TOAST table.
        unsafe { std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varlena::varsize_any(varlena)) }
    };
    // SAFETY: as above.
    let raw_size = |value| unsafe { pg_sys::toast_raw_datum_size(value) };
    image(one) == image(other) || (raw_size(one) == raw_size(other) && bytes_of(one) == bytes_of(other))
}

/// # Safety
/// `varlena` is a live, detoasted value (its header may be short), and stays so for `'a`.
unsafe fn varlena_bytes<'a>(varlena: *const pg_sys::varlena) -> &'a [u8] {
    // SAFETY: the size and the data are those of one live value.
    unsafe {
        std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(varlena).cast::<u8>(),
            pgrx::varlena::varsize_any_exhdr(varlena),
        )
    }
}

/// Parses the head of an encrypted value, and reads no more of it from its TOAST table than that. Calls `read` with it.
///
/// # Errors
/// What is wrong with the value, or what `read` returns.
pub fn with_head<T>(value: Datum, read: impl FnOnce(&Head<'_>) -> Result<T, ValueError>) -> Result<T, ValueError> {
    // SAFETY: `value` is a bytea argument that is not NULL, and lives as long as this call.
    if let Some(whole) = unsafe { inline(value).map(|varlena| varlena_bytes(varlena)) } {
        return match Head::parse(whole, whole.len()) {
            Ok(head) => read(&head),
            Err(HeadError::Invalid(error)) => Err(error),
            Err(HeadError::NeedBytes(_)) => Err(ValueError::Truncated),
        };
    }
    // SAFETY: as above.
    let value_bytes = unsafe { pg_sys::toast_raw_datum_size(value) } - pg_sys::VARHDRSZ;
    let mut slice_bytes = FIRST_SLICE_BYTES;
    loop {
        // SAFETY: as above. PostgreSQL cuts the slice at the value's end; the slice lives as long as this call.
        let prefix = unsafe {
            let count = i32::try_from(slice_bytes).unwrap_or(i32::MAX);
            varlena_bytes(pg_sys::pg_detoast_datum_slice(value.cast_mut_ptr(), 0, count))
        };
        match Head::parse(prefix, value_bytes) {
            Ok(head) => return read(&head),
            Err(HeadError::Invalid(error)) => return Err(error),
            // More than before: the parser asks only for what the prefix did not have.
            Err(HeadError::NeedBytes(bytes)) => slice_bytes = bytes,
        }
    }
}

/// A text or bytea result that is being written.
pub struct Varlena {
    pointer: *mut pg_sys::varlena,
    capacity: usize,
}

impl Varlena {
    /// Room for `bytes` bytes, which the caller writes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above PostgreSQL's limit, [`Error::OutOfMemory`].
    pub fn with_room(bytes: usize) -> Result<Self, Error> {
        let total = bytes.saturating_add(pg_sys::VARHDRSZ);
        if total > MAX_ALLOC_BYTES {
            return Err(Error::TooLarge(bytes));
        }
        // SAFETY: the size is valid, which is all that it asks for.
        let pointer: *mut pg_sys::varlena = unsafe { palloc_extended(total, MCXT_ALLOC_NO_OOM).cast() };
        if pointer.is_null() { Err(Error::OutOfMemory(total)) } else { Ok(Self { pointer, capacity: bytes }) }
    }

    /// A copy of some bytes.
    ///
    /// # Errors
    /// As [`Self::with_room`].
    pub fn copy_of(bytes: &[u8]) -> Result<Datum, Error> {
        let mut copy = Self::with_room(bytes.len())?;
        copy.as_mut_slice().copy_from_slice(bytes);
        Ok(copy.finish(bytes.len()))
    }

    /// The room.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `with_room` allocated a header and this many bytes; nobody else has the pointer. What palloc returned is
        // memory of a foreign allocator, so its bytes have some value.
        unsafe {
            let data = self.pointer.cast::<u8>().add(pg_sys::VARHDRSZ);
            std::slice::from_raw_parts_mut(data, self.capacity)
        }
    }

    /// The result, of which `bytes` bytes were written.
    pub fn finish(self, bytes: usize) -> Datum {
        assert!(bytes <= self.capacity);
        // SAFETY: the header is inside the allocation, and the length fits it since `with_room` checked the capacity.
        unsafe { pgrx::varlena::set_varsize_4b(self.pointer, (bytes + pg_sys::VARHDRSZ) as i32) };
        Datum::from(self.pointer)
    }
}

/// JSON text of a jsonb, in the database's encoding.
pub fn jsonb_text<'a>(jsonb: Datum) -> &'a CStr {
    // SAFETY: callers pass a jsonb argument that is not NULL. jsonb_out returns a C string, in a memory context that
    // PostgreSQL resets after the SQL function's call.
    unsafe {
        let text = direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(jsonb)]);
        CStr::from_ptr(text.expect("jsonb_out returns a C string").cast_mut_ptr())
    }
}

/// The jsonb of a JSON text in the database's encoding.
///
/// # Errors
/// [`ValueError::Malformed`] if it is not JSON; PostgreSQL's own error would quote the text.
pub fn jsonb_from_text(text: &CStr) -> Result<Datum, ValueError> {
    use pgrx::PgSqlErrorCode as Code;
    const MALFORMED: ValueError = ValueError::Malformed("plaintext is not JSON");
    // SAFETY: jsonb_in takes a C string.
    let parse = || unsafe {
        let jsonb = direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(Datum::from(text.as_ptr()))]);
        Ok(jsonb.expect("jsonb_in returns a jsonb"))
    };
    // Parsing has no side effects to roll back but memory of the current context.
    pgrx::PgTryBuilder::new(parse)
        .catch_when(Code::ERRCODE_INVALID_TEXT_REPRESENTATION, |_| Err(MALFORMED))
        .catch_when(Code::ERRCODE_UNTRANSLATABLE_CHARACTER, |_| Err(MALFORMED))
        .execute()
}
