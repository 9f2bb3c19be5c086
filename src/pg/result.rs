//! Results of SQL functions that are more than bytes.

use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::encoding::from_utf8;
use crate::pg::function_call::FunctionCall;
use crate::pg::jsonb::jsonb_from_text;
use crate::pg::varlena::Varlena;

/// A text.
///
/// # Errors
/// If the database's encoding lacks a character of it.
pub fn text_datum(text: &str) -> Result<Datum, Error> {
    Varlena::copy_of(&from_utf8(text.as_bytes())?)
}

/// A jsonb.
///
/// # Errors
/// If it is not JSON, or the database's encoding lacks a character of it.
pub fn jsonb_datum(json: &str) -> Result<Datum, Error> {
    jsonb_from_text(&from_utf8(json.as_bytes())?)
}

/// A text[] of texts, in the database's encoding.
///
/// # Errors
/// As [`text_datum`].
pub fn text_array_datum<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Datum, Error> {
    let mut elements = texts.into_iter().map(text_datum).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the elements are text datums: of variable length, passed by reference, and aligned as integers. PostgreSQL
    // copies them into the array.
    let array = unsafe {
        let (count, alignment) = (elements.len() as i32, pg_sys::TYPALIGN_INT as _);
        pg_sys::construct_array(elements.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, alignment)
    };
    Ok(Datum::from(array))
}

/// A row of the function's declared result type, no column of it NULL.
pub fn row_datum(call: &FunctionCall, columns: &[Datum]) -> Datum {
    nullable_row_datum(call, &columns.iter().copied().map(Some).collect::<Vec<_>>())
}

/// A row of the function's declared result type.
pub fn nullable_row_datum(call: &FunctionCall, columns: &[Option<Datum>]) -> Datum {
    let nulls: Vec<_> = columns.iter().map(Option::is_none).collect();
    let columns: Vec<_> = columns.iter().map(|column| column.unwrap_or(Datum::null())).collect();
    // SAFETY: the result type is the record that sql/ declares, with as many columns, of these types in this order.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        let class = pg_sys::get_call_result_type(call.fcinfo(), std::ptr::null_mut(), &mut descriptor);
        assert!(class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE && (*descriptor).natts as usize == columns.len());
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let tuple = pg_sys::heap_form_tuple(descriptor, columns.as_ptr().cast_mut(), nulls.as_ptr().cast_mut());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// A bytea[], which is not NULL and has no NULL in it.
///
/// # Errors
/// As [`Varlena::copy_of`].
pub fn bytea_array_datum<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Result<Datum, Error> {
    let mut elements = elements.map(Varlena::copy_of).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the elements are bytea datums: of variable length, passed by reference, and aligned as integers. PostgreSQL
    // copies them into the array.
    let array = unsafe {
        let (count, alignment) = (elements.len() as i32, pg_sys::TYPALIGN_INT as _);
        pg_sys::construct_array(elements.as_mut_ptr(), count, pg_sys::BYTEAOID, -1, false, alignment)
    };
    Ok(Datum::from(array))
}

/// A bigint[], which is not NULL and has no NULL in it.
pub fn bigint_array_datum(elements: impl Iterator<Item = i64>) -> Datum {
    let mut elements: Vec<Datum> = elements.map(Datum::from).collect();
    // SAFETY: the elements are bigint datums: of 8 bytes, passed by value, and aligned as doubles, on the 64-bit machines that
    // the library is built for.
    let array = unsafe {
        let (count, alignment) = (elements.len() as i32, pg_sys::TYPALIGN_DOUBLE as _);
        pg_sys::construct_array(elements.as_mut_ptr(), count, pg_sys::INT8OID, 8, true, alignment)
    };
    Datum::from(array)
}
