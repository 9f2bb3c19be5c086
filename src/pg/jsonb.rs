//! jsonb to and from JSON text.

use std::ffi::CStr;
use std::marker::PhantomData;

use envelope_core::error::ValueError;
use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum};

/// A live jsonb that is not NULL.
#[derive(Clone, Copy)]
pub struct JsonbDatum<'a> {
    datum: Datum,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> JsonbDatum<'a> {
    /// # Safety
    /// `datum` is a jsonb, and neither it nor what is made of it in the current memory context goes before `'a` ends.
    pub unsafe fn new(datum: Datum) -> Self {
        Self { datum, lifetime: PhantomData }
    }

    /// JSON text in the database's encoding.
    pub fn text(self) -> &'a CStr {
        // SAFETY: jsonb_out takes a jsonb, and returns a C string in the current memory context, which `new` speaks of.
        unsafe {
            let text = direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(self.datum)]);
            CStr::from_ptr(text.expect("jsonb_out returns a C string").cast_mut_ptr())
        }
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
