//! jsonb to and from JSON text.

use std::ffi::CStr;
use std::marker::PhantomData;

use envelope_core::error::ValueError;
use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum};

use crate::error::Error;
use crate::pg::varlena::Varlena;

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
/// [`ValueError::Malformed`] if it is not JSON, where PostgreSQL's own error would quote the text; [`Error::OutOfMemory`].
pub fn jsonb_from_text(text: &[u8]) -> Result<Datum, Error> {
    // In PostgreSQL's memory, as it may be as large as a value.
    let mut terminated = Varlena::with_room(text.len() + 1)?;
    let room = terminated.as_mut_slice();
    room[..text.len()].copy_from_slice(text);
    room[text.len()] = 0;
    let text = CStr::from_bytes_with_nul(room).map_err(|_| ValueError::Malformed("plaintext is not JSON"))?;
    Ok(parse(text)?)
}

fn parse(text: &CStr) -> Result<Datum, ValueError> {
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
