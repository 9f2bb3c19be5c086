//! The SQL functions that make search tokens.

use std::borrow::Cow;

use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::search::{
    Bucketed, Buckets, IndexKey, Plan, PrefixLengths, SearchError, Searchable, Step, TokenBits, ValueKind, normalize,
};
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::index_keys::tell_of_change;
use crate::pg::result::{bytea_array_datum, nullable_row_datum, text_datum};
use crate::pg::scalars;
use crate::pg::varlena::Varlena;
use crate::session::index_keys::{self, Index};
use crate::session::{self, Sealing, named_keys};
use crate::sql::functions::{context_argument, utf8_argument};

sql_functions! {
    env_blind_index_text, pg_finfo_env_blind_index_text => blind_index::<Text>;
    env_blind_index_bytea, pg_finfo_env_blind_index_bytea => blind_index::<Bytea>;
    env_blind_index_smallint, pg_finfo_env_blind_index_smallint => blind_index::<Smallint>;
    env_blind_index_integer, pg_finfo_env_blind_index_integer => blind_index::<Integer>;
    env_blind_index_bigint, pg_finfo_env_blind_index_bigint => blind_index::<Bigint>;
    env_blind_index_numeric, pg_finfo_env_blind_index_numeric => blind_index::<Numeric>;
    env_blind_index_date, pg_finfo_env_blind_index_date => blind_index::<Date>;
    env_blind_index_timestamptz, pg_finfo_env_blind_index_timestamptz => blind_index::<Timestamptz>;
    env_blind_index_uuid, pg_finfo_env_blind_index_uuid => blind_index::<Uuid>;
    env_blind_index_candidates_text, pg_finfo_env_blind_index_candidates_text => candidates::<Text>;
    env_blind_index_candidates_bytea, pg_finfo_env_blind_index_candidates_bytea => candidates::<Bytea>;
    env_blind_index_candidates_smallint, pg_finfo_env_blind_index_candidates_smallint => candidates::<Smallint>;
    env_blind_index_candidates_integer, pg_finfo_env_blind_index_candidates_integer => candidates::<Integer>;
    env_blind_index_candidates_bigint, pg_finfo_env_blind_index_candidates_bigint => candidates::<Bigint>;
    env_blind_index_candidates_numeric, pg_finfo_env_blind_index_candidates_numeric => candidates::<Numeric>;
    env_blind_index_candidates_date, pg_finfo_env_blind_index_candidates_date => candidates::<Date>;
    env_blind_index_candidates_timestamptz, pg_finfo_env_blind_index_candidates_timestamptz => candidates::<Timestamptz>;
    env_blind_index_candidates_uuid, pg_finfo_env_blind_index_candidates_uuid => candidates::<Uuid>;
    env_blind_index_boolean, pg_finfo_env_blind_index_boolean => refuse_boolean;
    env_blind_index_timestamp, pg_finfo_env_blind_index_timestamp => refuse_timestamp;
    env_prefix_tokens, pg_finfo_env_prefix_tokens => prefix_tokens;
    env_prefix_token, pg_finfo_env_prefix_token => prefix_token;
    env_prefix_token_candidates, pg_finfo_env_prefix_token_candidates => prefix_token_candidates;
    env_bucket_token_smallint, pg_finfo_env_bucket_token_smallint => bucket_token::<Smallint>;
    env_bucket_token_integer, pg_finfo_env_bucket_token_integer => bucket_token::<Integer>;
    env_bucket_token_bigint, pg_finfo_env_bucket_token_bigint => bucket_token::<Bigint>;
    env_bucket_token_numeric, pg_finfo_env_bucket_token_numeric => bucket_token::<Numeric>;
    env_bucket_token_date, pg_finfo_env_bucket_token_date => bucket_token::<Date>;
    env_bucket_token_timestamptz, pg_finfo_env_bucket_token_timestamptz => bucket_token::<Timestamptz>;
    env_bucket_tokens_smallint, pg_finfo_env_bucket_tokens_smallint => bucket_tokens::<Smallint>;
    env_bucket_tokens_integer, pg_finfo_env_bucket_tokens_integer => bucket_tokens::<Integer>;
    env_bucket_tokens_bigint, pg_finfo_env_bucket_tokens_bigint => bucket_tokens::<Bigint>;
    env_bucket_tokens_numeric, pg_finfo_env_bucket_tokens_numeric => bucket_tokens::<Numeric>;
    env_bucket_tokens_date, pg_finfo_env_bucket_tokens_date => bucket_tokens::<Date>;
    env_bucket_tokens_timestamptz, pg_finfo_env_bucket_tokens_timestamptz => bucket_tokens::<Timestamptz>;
    env_normalize, pg_finfo_env_normalize => normalize_text;
    env_index_plan, pg_finfo_env_index_plan => index_plan;
    env_index_key_stub, pg_finfo_env_index_key_stub => index_key_stub;
    env_index_key_changed, pg_finfo_env_index_key_changed => index_key_changed;
}

/// A type whose values have tokens.
trait Argument {
    /// Reads an argument that is not NULL.
    fn searchable(datum: Datum) -> Result<Searchable<'static>, Error>;

    /// The number of the bucket of a value, by the origin and the width that follow it. Only where sql/ has a function for it.
    fn bucket(_value: Datum, _width: Datum, _origin: Datum) -> Result<i64, Error> {
        unreachable!("sql/ has no buckets of the type")
    }

    const KIND: ValueKind;
}

macro_rules! arguments {
    ($($name:ident: $kind:ident, |$datum:ident| $read:expr $(, |$value:ident, $width:ident, $origin:ident| $bucket:expr)?;)*) => {$(
        struct $name;

        impl Argument for $name {
            const KIND: ValueKind = ValueKind::$kind;

            fn searchable($datum: Datum) -> Result<Searchable<'static>, Error> {
                $read
            }

            $(fn bucket($value: Datum, $width: Datum, $origin: Datum) -> Result<i64, Error> {
                $bucket
            })?
        }
    )*};
}

arguments! {
    Text: Text, |datum| Ok(Searchable::text(to_utf8(scalars::bytes(datum))?));
    Bytea: Bytea, |datum| Ok(Searchable::bytea(scalars::bytes(datum)));
    Smallint: Bigint, |datum| Ok(Searchable::bigint(scalars::smallint(datum))),
        |value, width, origin| bucket_of(scalars::smallint(value), scalars::bigint(width), scalars::bigint(origin));
    Integer: Bigint, |datum| Ok(Searchable::bigint(scalars::integer(datum))),
        |value, width, origin| bucket_of(scalars::integer(value), scalars::bigint(width), scalars::bigint(origin));
    Bigint: Bigint, |datum| Ok(Searchable::bigint(scalars::bigint(datum))),
        |value, width, origin| bucket_of(scalars::bigint(value), scalars::bigint(width), scalars::bigint(origin));
    Numeric: Numeric, |datum| Ok(Searchable::numeric(scalars::numeric_text(datum))?),
        |value, width, origin| scalars::numeric_bucket(value, width, origin);
    Date: Date, |datum| Ok(Searchable::date(scalars::date(datum))),
        |value, width, origin| bucket_of(finite(scalars::date(value))?, scalars::integer(width), finite(scalars::date(origin))?);
    Timestamptz: Timestamptz, |datum| Ok(Searchable::timestamptz(scalars::bigint(datum))),
        |value, width, origin| bucket_of(finite_time(value)?, scalars::interval(width)?, finite_time(origin)?);
    Uuid: Uuid, |datum| Ok(Searchable::uuid(scalars::uuid(datum)));
}

/// A value of a type that PostgreSQL has read.
///
/// # Errors
/// None for what PostgreSQL writes.
pub fn searchable(kind: ValueKind, datum: Datum) -> Result<Searchable<'static>, Error> {
    match kind {
        ValueKind::Bytea => Bytea::searchable(datum),
        ValueKind::Text => Text::searchable(datum),
        ValueKind::Bigint => Bigint::searchable(datum),
        ValueKind::Numeric => Numeric::searchable(datum),
        ValueKind::Date => Date::searchable(datum),
        ValueKind::Timestamptz => Timestamptz::searchable(datum),
        ValueKind::Uuid => Uuid::searchable(datum),
    }
}

/// The number of the bucket of such a value.
///
/// # Errors
/// [`SearchError`].
pub fn bucket_number(kind: ValueKind, value: Datum, width: Datum, origin: Datum) -> Result<i64, Error> {
    match kind {
        ValueKind::Bigint => Bigint::bucket(value, width, origin),
        ValueKind::Numeric => Numeric::bucket(value, width, origin),
        ValueKind::Date => Date::bucket(value, width, origin),
        ValueKind::Timestamptz => Timestamptz::bucket(value, width, origin),
        ValueKind::Bytea | ValueKind::Text | ValueKind::Uuid => unreachable!("a rule has no such buckets"),
    }
}

fn bucket_of(value: i64, width: i64, origin: i64) -> Result<i64, Error> {
    Ok(Buckets::new(origin, width)?.number(value)?)
}

/// PostgreSQL's -infinity and infinity of dates are the least and the greatest number.
fn finite(days: i32) -> Result<i64, Error> {
    if matches!(days, i32::MIN | i32::MAX) { Err(SearchError::NotFinite.into()) } else { Ok(days.into()) }
}

fn finite_time(datum: Datum) -> Result<i64, Error> {
    let microseconds = scalars::bigint(datum);
    if matches!(microseconds, i64::MIN | i64::MAX) { Err(SearchError::NotFinite.into()) } else { Ok(microseconds) }
}

/// The index key that an argument names.
fn index_argument(call: &FunctionCall, index: usize) -> Result<std::rc::Rc<Index>, Error> {
    index_keys::index(call.bytes(index).ok_or(Error::NullArgument("index_name"))?)
}

fn integer_argument(call: &FunctionCall, index: usize) -> Option<i32> {
    call.datum(index).map(|datum| scalars::integer(datum) as i32)
}

fn bits_argument(call: &FunctionCall, index: usize) -> Result<Option<TokenBits>, Error> {
    Ok(integer_argument(call, index).map(|bits| TokenBits::new(bits.into())).transpose()?)
}

fn token<T>(key: &IndexKey, value: &Searchable<'_>, bits: Option<TokenBits>, use_token: impl FnOnce(&[u8]) -> T) -> T {
    match bits {
        None => use_token(&key.equality_token(value)),
        Some(bits) => use_token(&key.short_token(value, bits)),
    }
}

/// `(value, index_name, bits, version)`.
fn blind_index<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let bits = bits_argument(call, 2)?;
    let version = integer_argument(call, 3);
    let Some(value) = call.datum(0) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    token(opened.key(), &T::searchable(value)?, bits, Varlena::copy_of).map(Some)
}

/// `(value, index_name, bits)`.
fn candidates<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let bits = bits_argument(call, 2)?;
    let Some(value) = call.datum(0) else {
        return Ok(None);
    };
    let value = T::searchable(value)?;
    let tokens: Vec<_> = index.live()?.iter().map(|opened| token(opened.key(), &value, bits, <[u8]>::to_vec)).collect();
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

fn refuse_boolean(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Err(Error::NoTokenOfBoolean)
}

fn refuse_timestamp(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Err(Error::NoTokenOfTimestamp)
}

fn lengths_argument(call: &FunctionCall, index: usize) -> Result<PrefixLengths, Error> {
    let lengths = call.datum(index).ok_or(Error::NullArgument("lengths"))?;
    Ok(PrefixLengths::new(&scalars::integers(lengths).ok_or(SearchError::PrefixLengths)?)?)
}

fn utf8_datum<'a>(text: &'a [u8]) -> Result<Cow<'a, str>, Error> {
    Ok(match to_utf8(text)? {
        Cow::Borrowed(text) => String::from_utf8_lossy(text),
        Cow::Owned(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
    })
}

/// `(value, index_name, lengths, version)`.
fn prefix_tokens(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let version = integer_argument(call, 3);
    let Some(text) = call.bytes(0) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    let tokens: Vec<_> = opened.key().prefix_tokens(&utf8_datum(text)?, &lengths).collect();
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

/// `(needle, index_name, lengths, version)`.
fn prefix_token(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let version = integer_argument(call, 3);
    let Some(needle) = call.bytes(0) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    Varlena::copy_of(&opened.key().needle_token(&utf8_datum(needle)?, &lengths)?).map(Some)
}

/// `(needle, index_name, lengths)`.
fn prefix_token_candidates(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let Some(needle) = call.bytes(0) else {
        return Ok(None);
    };
    let needle = utf8_datum(needle)?;
    let token = |opened: &index_keys::OpenedIndexKey| opened.key().needle_token(&needle, &lengths);
    let tokens: Vec<_> = index.live()?.iter().map(token).collect::<Result<_, _>>()?;
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

/// `(value, index_name, width, origin, version)`.
fn bucket_token<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let width = call.datum(2).ok_or(Error::NullArgument("width"))?;
    let origin = call.datum(3).ok_or(Error::NullArgument("origin"))?;
    let version = integer_argument(call, 4);
    let Some(value) = call.datum(0) else {
        return Ok(None);
    };
    let bucket = Bucketed::new(T::KIND, T::bucket(value, width, origin)?);
    Varlena::copy_of(&index.version(version)?.key().bucket_token(bucket)).map(Some)
}

/// `(low, high, index_name, width, origin, max_buckets)`: of all versions that make tokens.
fn bucket_tokens<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let low = call.datum(0).ok_or(Error::NullBound)?;
    let high = call.datum(1).ok_or(Error::NullBound)?;
    let index = index_argument(call, 2)?;
    let width = call.datum(3).ok_or(Error::NullArgument("width"))?;
    let origin = call.datum(4).ok_or(Error::NullArgument("origin"))?;
    let limit = integer_argument(call, 5).ok_or(Error::NullArgument("max_buckets"))?;
    let (first, last) = (T::bucket(low, width, origin)?, T::bucket(high, width, origin)?);
    let mut tokens = Vec::new();
    for opened in index.live()? {
        let buckets = Bucketed::range(T::KIND, first, last, limit.into())?;
        tokens.extend(buckets.map(|bucket| opened.key().bucket_token(bucket)));
    }
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

/// `(value, steps)`.
fn normalize_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let names = scalars::texts(call.datum(1).ok_or(Error::NullArgument("steps"))?).ok_or(SearchError::Step)?;
    let parse = |name: &[u8]| std::str::from_utf8(name).map_err(|_| SearchError::Step)?.parse();
    let steps: Vec<Step> = names.into_iter().map(parse).collect::<Result<_, _>>()?;
    call.bytes(0).map(|text| text_datum(&normalize(&utf8_datum(text)?, &steps)?)).transpose()
}

/// `(distinct_values, rows, bits)`.
fn index_plan(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let count = |index| call.datum(index).map(|datum| u64::try_from(scalars::bigint(datum)).unwrap_or_default());
    let (Some(distinct_values), Some(rows)) = (count(0), count(1)) else {
        return Err(SearchError::PlanOfNothing.into());
    };
    let bits = integer_argument(call, 2);
    let bits = bits.map(|bits| TokenBits::new(bits.into()).map(|_| bits as u8)).transpose()?;
    let plan = Plan::new(distinct_values, rows, bits)?;
    let integer = |bits: Option<u8>| bits.map(|bits| Datum::from(i32::from(bits)));
    let columns = [
        integer(plan.bits.map(|(least, _)| least)),
        integer(plan.bits.map(|(_, most)| most)),
        integer(plan.chosen_bits),
        Some(scalars::double(plan.tokens)),
        Some(scalars::double(plan.rows_per_token)),
        Some(scalars::double(plan.false_hits)),
    ];
    Ok(Some(nullable_row_datum(call, &columns)))
}

/// `(key_id, encryption_context)`: a value without data under a new data key.
fn index_key_stub(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let key_id = utf8_argument(call, 0, "key_id")?;
    let context: EncryptionContext = context_argument(call, 1)?.unwrap_or_default();
    named_keys::with_key(&key_id, &context, |key_id, context| {
        let Sealing { cached, random } = session::sealing(key_id, context, 0)?;
        let data_key = cached.data_key();
        let mut value = vec![0; data_key.value_bytes(0)];
        data_key.seal(ValueType::Bytea, &random, None, &[], &mut value);
        Varlena::copy_of(&Envelope::parse(&value)?.head.dek_stub()).map(Some)
    })
}

/// A trigger AFTER INSERT on the table of index keys.
fn index_key_changed(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    tell_of_change(call.fcinfo());
    Ok(Some(Datum::null()))
}
