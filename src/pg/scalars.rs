//! Values of the types that have search tokens, as Rust reads them.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;

use envelope_core::search::{SearchError, ValueKind};
use pgrx::fcinfo::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum};

use crate::error::Error;
use crate::pg::varlena::VarlenaDatum;

/// The SQL type of a scalar.
#[derive(Clone, Copy)]
pub enum ScalarType {
    Bytea,
    Text,
    Smallint,
    Integer,
    Bigint,
    Numeric,
    Date,
    Timestamptz,
    Uuid,
    Interval,
}

/// A value of such a type that is not NULL.
#[derive(Clone, Copy)]
pub enum Scalar<'a> {
    /// The bytes.
    Bytea(&'a [u8]),
    /// In the database's encoding.
    Text(&'a [u8]),
    /// A smallint, integer or bigint.
    Integer(i64),
    Numeric(Numeric<'a>),
    /// Days since 2000-01-01; the smallest and the largest number are -infinity and infinity.
    Date(i32),
    /// Microseconds since 2000-01-01 00:00 UTC, likewise.
    Timestamptz(i64),
    Uuid(&'a [u8; 16]),
    /// Microseconds, of one that is always as long: none of months, nor of more than 64 bits.
    Interval(Option<i64>),
}

impl Scalar<'_> {
    /// # Safety
    /// `datum` is a value of this type, is not NULL, and neither it nor what is made of it in the current memory context goes
    /// before the scalar does.
    #[inline]
    pub unsafe fn new(datum: Datum, scalar_type: ScalarType) -> Self {
        match scalar_type {
            // SAFETY: of variable length, and live, by this function's contract.
            ScalarType::Bytea => Self::Bytea(unsafe { VarlenaDatum::new(datum) }.bytes()),
            // SAFETY: as before.
            ScalarType::Text => Self::Text(unsafe { VarlenaDatum::new(datum) }.bytes()),
            ScalarType::Smallint => Self::Integer(i64::from(datum.value() as i16)),
            ScalarType::Integer => Self::Integer(i64::from(datum.value() as i32)),
            ScalarType::Bigint => Self::Integer(datum.value() as i64),
            ScalarType::Numeric => Self::Numeric(Numeric { datum, lifetime: PhantomData }),
            ScalarType::Date => Self::Date(datum.value() as i32),
            ScalarType::Timestamptz => Self::Timestamptz(datum.value() as i64),
            // SAFETY: a uuid is passed by reference to its 16 bytes, which are live by this function's contract.
            ScalarType::Uuid => Self::Uuid(unsafe { &*datum.cast_mut_ptr::<[u8; 16]>() }),
            // SAFETY: an interval is passed by reference, and is live by this function's contract.
            ScalarType::Interval => Self::Interval(microseconds(unsafe { &*datum.cast_mut_ptr() })),
        }
    }
}

impl Scalar<'static> {
    /// A value of a type from its text, if it has the one form that is the same in every session.
    pub fn parse(kind: ValueKind, text: &str) -> Option<Self> {
        // Digits and signs, and the letters of infinity, NaN, T, Z and hexadecimal digits.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.: ".contains(&byte));
        let is_iso = || text.as_bytes().get(4) == Some(&b'-') && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
        let is_infinity = || matches!(text, "infinity" | "-infinity");
        let has_offset = || text.ends_with('Z') || text.rfind(['+', '-']).is_some_and(|at| at > 10);
        let read = |scalar_type| input(scalar_type, text);
        match kind {
            _ if !is_plain => None,
            ValueKind::Bigint => read(ScalarType::Bigint),
            ValueKind::Numeric => read(ScalarType::Numeric),
            ValueKind::Uuid => read(ScalarType::Uuid),
            ValueKind::Date => (is_iso() && text.len() == 10 || is_infinity()).then(|| read(ScalarType::Date))?,
            ValueKind::Timestamptz => {
                (is_iso() && has_offset() || is_infinity()).then(|| read(ScalarType::Timestamptz))?
            }
            ValueKind::Bytea | ValueKind::Text => None,
        }
    }

    /// The width of buckets of a type.
    pub fn parse_width(kind: ValueKind, text: &str) -> Option<Self> {
        match kind {
            ValueKind::Bigint => input(ScalarType::Bigint, text),
            ValueKind::Numeric => input(ScalarType::Numeric, text),
            ValueKind::Date => input(ScalarType::Integer, text),
            ValueKind::Timestamptz => input(ScalarType::Interval, text),
            ValueKind::Bytea | ValueKind::Text | ValueKind::Uuid => None,
        }
    }
}

/// A numeric.
#[derive(Clone, Copy)]
pub struct Numeric<'a> {
    datum: Datum,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> Numeric<'a> {
    /// Its text, as PostgreSQL writes it.
    pub fn text(self) -> &'a str {
        // SAFETY: numeric_out takes a numeric, which this is, and returns a C string in the current memory context, which
        // `Scalar::new` speaks of.
        let text = unsafe {
            let text = direct_function_call_as_datum(pg_sys::numeric_out, &[Some(self.datum)]);
            CStr::from_ptr(text.expect("numeric_out returns a C string").cast_mut_ptr())
        };
        text.to_str().expect("ASCII")
    }

    /// floor((self - origin) / width), exactly.
    ///
    /// # Errors
    /// [`SearchError::NotFinite`], [`SearchError::Width`], [`SearchError::TooFar`].
    pub fn bucket(self, width: Self, origin: Self) -> Result<i64, Error> {
        let is_finite = |text: &str| !text.ends_with(|last: char| last.is_ascii_alphabetic());
        if !is_finite(self.text()) || !is_finite(origin.text()) {
            return Err(SearchError::NotFinite.into());
        }
        let width_text = width.text();
        if !is_finite(width_text)
            || width_text.starts_with('-')
            || !width_text.contains(|digit| ('1'..='9').contains(&digit))
        {
            return Err(SearchError::Width.into());
        }
        let distance = self.apply(pg_sys::numeric_sub, origin);
        let quotient = distance.apply(pg_sys::numeric_div_trunc, width);
        let remainder = distance.apply(pg_sys::numeric_mod, width);
        let quotient: i64 = quotient.text().parse().map_err(|_| SearchError::TooFar)?;
        let below = i64::from(remainder.text().starts_with('-'));
        quotient.checked_sub(below).ok_or_else(|| SearchError::TooFar.into())
    }

    fn apply(self, function: unsafe fn(pg_sys::FunctionCallInfo) -> Datum, other: Self) -> Self {
        // SAFETY: the functions that are passed here take two numerics, and return one in the current memory context.
        let datum = unsafe { direct_function_call_as_datum(function, &[Some(self.datum), Some(other.datum)]) };
        Self { datum: datum.expect("they return a numeric"), lifetime: PhantomData }
    }
}

/// A double precision.
pub fn double(number: f64) -> Datum {
    Datum::from(number.to_bits())
}

fn microseconds(interval: &pg_sys::Interval) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    let days = i64::from(interval.day).checked_mul(DAY)?;
    days.checked_add(interval.time).filter(|_| interval.month == 0)
}

/// What the input function of a type reads; its error would quote the text.
fn input(scalar_type: ScalarType, text: &str) -> Option<Scalar<'static>> {
    use pgrx::PgSqlErrorCode as Code;
    let function = match scalar_type {
        ScalarType::Integer => pg_sys::int4in,
        ScalarType::Bigint => pg_sys::int8in,
        ScalarType::Numeric => pg_sys::numeric_in,
        ScalarType::Date => pg_sys::date_in,
        ScalarType::Timestamptz => pg_sys::timestamptz_in,
        ScalarType::Uuid => pg_sys::uuid_in,
        ScalarType::Interval => pg_sys::interval_in,
        ScalarType::Bytea | ScalarType::Text | ScalarType::Smallint => return None,
    };
    let text = CString::new(text).ok()?;
    // SAFETY: an input function takes a C string, a type that matters for arrays only, and no type modifier. It returns a value of
    // its type in the current memory context, which lives as long as the SQL function's call.
    let read = || unsafe {
        let arguments =
            [Some(Datum::from(text.as_ptr())), Some(Datum::from(pg_sys::InvalidOid)), Some(Datum::from(-1_i32))];
        direct_function_call_as_datum(function, &arguments).map(|datum| Scalar::new(datum, scalar_type))
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
