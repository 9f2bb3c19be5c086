//! Arguments of fixed types that have search tokens. Callers pass datums of the type in the function's name, not NULL: sql/
//! declares the types.

use std::ffi::{CStr, CString};

use envelope_core::search::{SearchError, ValueKind};
use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum};

use crate::error::Error;
use crate::pg::varlena::VarlenaDatum;

/// The bytes of a text or bytea, as long as the SQL function's call.
pub fn bytes(datum: Datum) -> &'static [u8] {
    // SAFETY: a text or bytea, which lives as long as the SQL function's call.
    unsafe { VarlenaDatum::new(datum) }.bytes()
}

/// A smallint.
pub fn smallint(datum: Datum) -> i64 {
    i64::from(datum.value() as i16)
}

/// An integer.
pub fn integer(datum: Datum) -> i64 {
    i64::from(datum.value() as i32)
}

/// A bigint, or the microseconds of a timestamptz.
pub fn bigint(datum: Datum) -> i64 {
    datum.value() as i64
}

/// The days of a date.
pub fn date(datum: Datum) -> i32 {
    datum.value() as i32
}

/// A double precision.
pub fn double(number: f64) -> Datum {
    Datum::from(number.to_bits())
}

/// The bytes of a uuid.
pub fn uuid(datum: Datum) -> &'static [u8; 16] {
    // SAFETY: a uuid is passed by reference to its 16 bytes, which live as long as the SQL function's call.
    unsafe { &*datum.cast_mut_ptr::<[u8; 16]>() }
}

/// The microseconds of an interval that is always as long.
///
/// # Errors
/// [`SearchError::Width`] for one of months, or of more than 64 bits.
pub fn interval(datum: Datum) -> Result<i64, Error> {
    const DAY: i64 = 86_400_000_000;
    // SAFETY: an interval is passed by reference, and lives as long as the SQL function's call.
    let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
    let days = i64::from(interval.day).checked_mul(DAY).and_then(|days| days.checked_add(interval.time));
    days.filter(|_| interval.month == 0).ok_or_else(|| SearchError::Width.into())
}

/// The text of a numeric, as PostgreSQL writes it.
pub fn numeric_text(datum: Datum) -> &'static str {
    // SAFETY: numeric_out takes a numeric, and returns a C string in a memory context that lives as long as the SQL function's
    // call.
    let text = unsafe {
        let text = direct_function_call_as_datum(pg_sys::numeric_out, &[Some(datum)]);
        CStr::from_ptr(text.expect("numeric_out returns a C string").cast_mut_ptr())
    };
    text.to_str().expect("ASCII")
}

/// floor((value - origin) / width), exactly.
///
/// # Errors
/// [`SearchError::NotFinite`], [`SearchError::Width`], [`SearchError::TooFar`].
pub fn numeric_bucket(value: Datum, width: Datum, origin: Datum) -> Result<i64, Error> {
    let is_finite = |text: &str| !text.ends_with(|last: char| last.is_ascii_alphabetic());
    if !is_finite(numeric_text(value)) || !is_finite(numeric_text(origin)) {
        return Err(SearchError::NotFinite.into());
    }
    let width_text = numeric_text(width);
    if !is_finite(width_text)
        || width_text.starts_with('-')
        || !width_text.contains(|digit| ('1'..='9').contains(&digit))
    {
        return Err(SearchError::Width.into());
    }
    // SAFETY: the functions take two numerics and return one.
    let (quotient, remainder) = unsafe {
        let apply = |function, one, other| {
            direct_function_call_as_datum(function, &[Some(one), Some(other)]).expect("they return a numeric")
        };
        let distance = apply(pg_sys::numeric_sub, value, origin);
        (apply(pg_sys::numeric_div_trunc, distance, width), apply(pg_sys::numeric_mod, distance, width))
    };
    let quotient: i64 = numeric_text(quotient).parse().map_err(|_| SearchError::TooFar)?;
    let below = i64::from(numeric_text(remainder).starts_with('-'));
    quotient.checked_sub(below).ok_or_else(|| SearchError::TooFar.into())
}

/// A value of a type from its text, if it has the one form that is the same in every session.
pub fn parse(kind: ValueKind, text: &str) -> Option<Datum> {
    // Digits and signs, and the letters of infinity, NaN, T, Z and hexadecimal digits.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.: ".contains(&byte));
    let is_iso = || text.as_bytes().get(4) == Some(&b'-') && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
    let is_infinity = || matches!(text, "infinity" | "-infinity");
    let has_offset = || text.ends_with('Z') || text.rfind(['+', '-']).is_some_and(|at| at > 10);
    match kind {
        _ if !is_plain => None,
        ValueKind::Bigint => input(pg_sys::int8in, text),
        ValueKind::Numeric => input(pg_sys::numeric_in, text),
        ValueKind::Uuid => input(pg_sys::uuid_in, text),
        ValueKind::Date => (is_iso() && text.len() == 10 || is_infinity()).then(|| input(pg_sys::date_in, text))?,
        ValueKind::Timestamptz => {
            (is_iso() && has_offset() || is_infinity()).then(|| input(pg_sys::timestamptz_in, text))?
        }
        ValueKind::Bytea | ValueKind::Text => None,
    }
}

/// The width of buckets of a type.
pub fn parse_width(kind: ValueKind, text: &str) -> Option<Datum> {
    match kind {
        ValueKind::Bigint => input(pg_sys::int8in, text),
        ValueKind::Numeric => input(pg_sys::numeric_in, text),
        ValueKind::Date => input(pg_sys::int4in, text),
        ValueKind::Timestamptz => input(pg_sys::interval_in, text),
        ValueKind::Bytea | ValueKind::Text | ValueKind::Uuid => None,
    }
}

/// What the input function of a type reads; its error would quote the text.
fn input(function: unsafe fn(pg_sys::FunctionCallInfo) -> Datum, text: &str) -> Option<Datum> {
    use pgrx::PgSqlErrorCode as Code;
    let text = CString::new(text).ok()?;
    // SAFETY: an input function takes a C string, a type that matters for arrays only, and no type modifier.
    let read = || unsafe {
        let arguments =
            [Some(Datum::from(text.as_ptr())), Some(Datum::from(pg_sys::InvalidOid)), Some(Datum::from(-1_i32))];
        direct_function_call_as_datum(function, &arguments)
    };
    // Reading has no side effects to roll back but memory of the current context.
    pgrx::PgTryBuilder::new(read)
        .catch_when(Code::ERRCODE_INVALID_TEXT_REPRESENTATION, |_| None)
        .catch_when(Code::ERRCODE_INVALID_DATETIME_FORMAT, |_| None)
        .catch_when(Code::ERRCODE_DATETIME_FIELD_OVERFLOW, |_| None)
        .catch_when(Code::ERRCODE_INTERVAL_FIELD_OVERFLOW, |_| None)
        .catch_when(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, |_| None)
        .catch_when(Code::ERRCODE_INVALID_TIME_ZONE_DISPLACEMENT_VALUE, |_| None)
        .execute()
}

/// What is named in an array is a few lengths, or steps: never more than this.
const MOST_ELEMENTS: usize = 32;

/// The elements of an integer[]; `None` if one of them is NULL, or there are too many.
pub fn integers(datum: Datum) -> Option<Vec<i64>> {
    let elements = elements(datum, pg_sys::INT4OID, 4, true, pg_sys::TYPALIGN_INT)?;
    Some(elements.into_iter().map(integer).collect())
}

/// The elements of a text[]; `None` if one of them is NULL, or there are too many.
pub fn texts(datum: Datum) -> Option<Vec<&'static [u8]>> {
    let elements = elements(datum, pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT)?;
    Some(elements.into_iter().map(bytes).collect())
}

fn elements(array: Datum, element: pg_sys::Oid, bytes: i32, by_value: bool, align: u8) -> Option<Vec<Datum>> {
    let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: the array is of this element type; what deconstruct_array returns has `count` elements, and lives as long as the
    // SQL function's call.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast();
        pg_sys::deconstruct_array(array, element, bytes, by_value, align as _, &mut values, &mut nulls, &mut count);
        if count == 0 {
            return Some(Vec::new());
        }
        let nulls = std::slice::from_raw_parts(nulls, count as usize);
        (nulls.len() <= MOST_ELEMENTS && !nulls.contains(&true))
            .then(|| std::slice::from_raw_parts(values, count as usize).to_vec())
    }
}
