//! The SQL functions that make search tokens.

use envelope_core::format::{Envelope, NONCE_BYTES, ValueType};
use envelope_core::search::{
    Bucketed, Buckets, IndexKey, Plan, PrefixLengths, SearchError, Searchable, Step, TokenBits, ValueKind, normalize,
};
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::index_keys::tell_of_change;
use crate::pg::result::{bytea_array_datum, nullable_row_datum, text_datum};
use crate::pg::scalars::{Scalar, ScalarType, double};
use crate::pg::varlena::Varlena;
use crate::session;
use crate::session::index_keys::{self, Index};
use crate::session::named_keys::KeyChoice;
use crate::sql::functions::{context_argument, utf8, utf8_argument};

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
    const TYPE: ScalarType;
}

macro_rules! arguments {
    ($($name:ident),*) => {$(
        struct $name;

        impl Argument for $name {
            const TYPE: ScalarType = ScalarType::$name;
        }
    )*};
}

arguments!(Bytea, Text, Smallint, Integer, Bigint, Numeric, Date, Timestamptz, Uuid);

/// The one encoding of a value.
///
/// # Errors
/// None for what PostgreSQL writes.
#[inline]
pub fn searchable(value: Scalar<'_>) -> Result<Searchable<'_>, Error> {
    Ok(match value {
        Scalar::Bytea(bytes) => Searchable::bytea(bytes),
        Scalar::Text(text) => Searchable::text(to_utf8(text)?),
        Scalar::Integer(number) => Searchable::bigint(number),
        Scalar::Numeric(number) => Searchable::numeric(number.text())?,
        Scalar::Date(days) => Searchable::date(days),
        Scalar::Timestamptz(microseconds) => Searchable::timestamptz(microseconds),
        Scalar::Uuid(bytes) => Searchable::uuid(bytes),
        Scalar::Interval(_) => unreachable!("sql/ has no tokens of intervals"),
    })
}

/// The bucket of a value.
///
/// # Errors
/// [`SearchError`].
pub fn bucket(value: Scalar<'_>, width: Scalar<'_>, origin: Scalar<'_>) -> Result<Bucketed, Error> {
    let bucket_of = |value, width, origin| Ok::<_, Error>(Buckets::new(origin, width)?.number(value)?);
    let (kind, number) = match (value, width, origin) {
        (Scalar::Integer(value), Scalar::Integer(width), Scalar::Integer(origin)) => {
            (ValueKind::Bigint, bucket_of(value, width, origin)?)
        }
        (Scalar::Numeric(value), Scalar::Numeric(width), Scalar::Numeric(origin)) => {
            (ValueKind::Numeric, value.bucket(width, origin)?)
        }
        (Scalar::Date(value), Scalar::Integer(width), Scalar::Date(origin)) => {
            (ValueKind::Date, bucket_of(finite_date(value)?, width, finite_date(origin)?)?)
        }
        (Scalar::Timestamptz(value), Scalar::Interval(width), Scalar::Timestamptz(origin)) => {
            let width = width.ok_or(SearchError::Width)?;
            (ValueKind::Timestamptz, bucket_of(finite_time(value)?, width, finite_time(origin)?)?)
        }
        _ => unreachable!("neither sql/ nor a rule has buckets of other types"),
    };
    Ok(Bucketed::new(kind, number))
}

/// PostgreSQL's -infinity and infinity of dates are the least and the greatest number.
fn finite_date(days: i32) -> Result<i64, SearchError> {
    if matches!(days, i32::MIN | i32::MAX) { Err(SearchError::NotFinite) } else { Ok(days.into()) }
}

/// The same of times.
fn finite_time(microseconds: i64) -> Result<i64, SearchError> {
    if matches!(microseconds, i64::MIN | i64::MAX) { Err(SearchError::NotFinite) } else { Ok(microseconds) }
}

/// The index key that an argument names.
fn index_argument(call: &FunctionCall, index: usize) -> Result<std::rc::Rc<Index>, Error> {
    index_keys::index(call.bytes(index).ok_or(Error::NullArgument("index_name"))?)
}

fn bits_argument(call: &FunctionCall, index: usize) -> Result<Option<TokenBits>, Error> {
    Ok(call.integer(index).map(|bits| TokenBits::new(bits.into())).transpose()?)
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
    let version = call.integer(3);
    let Some(value) = call.scalar(0, T::TYPE) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    token(opened.key(), &searchable(value)?, bits, Varlena::copy_of).map(Some)
}

/// `(value, index_name, bits)`.
fn candidates<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let bits = bits_argument(call, 2)?;
    let Some(value) = call.scalar(0, T::TYPE) else {
        return Ok(None);
    };
    let value = searchable(value)?;
    let tokens: Vec<_> = index.live()?.iter().map(|opened| token(opened.key(), &value, bits, <[u8]>::to_vec)).collect();
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

fn refuse_boolean(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Err(Error::NoTokenOfBoolean)
}

fn refuse_timestamp(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Err(Error::NoTokenOfTimestamp)
}

/// What is named in an array is a few lengths, of which no more are valid, or steps: never more than this.
const MOST_ELEMENTS: usize = 32;

fn lengths_argument(call: &FunctionCall, index: usize) -> Result<PrefixLengths, Error> {
    let lengths = call.integer_array(index).ok_or(Error::NullArgument("lengths"))?;
    let lengths: Option<Vec<_>> = lengths.iter().take(MOST_ELEMENTS).map(|length| length.map(i64::from)).collect();
    Ok(PrefixLengths::new(&lengths.ok_or(SearchError::PrefixLengths)?)?)
}

/// `(value, index_name, lengths, version)`.
fn prefix_tokens(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let version = call.integer(3);
    let Some(text) = call.bytes(0) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    let tokens: Vec<_> = opened.key().prefix_tokens(&utf8(text)?, &lengths).collect();
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

/// `(needle, index_name, lengths, version)`.
fn prefix_token(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let version = call.integer(3);
    let Some(needle) = call.bytes(0) else {
        return Ok(None);
    };
    let opened = index.version(version)?;
    Varlena::copy_of(&opened.key().needle_token(&utf8(needle)?, &lengths)?).map(Some)
}

/// `(needle, index_name, lengths)`.
fn prefix_token_candidates(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let lengths = lengths_argument(call, 2)?;
    let Some(needle) = call.bytes(0) else {
        return Ok(None);
    };
    let needle = utf8(needle)?;
    let token = |opened: &index_keys::OpenedIndexKey| opened.key().needle_token(&needle, &lengths);
    let tokens: Vec<_> = index.live()?.iter().map(token).collect::<Result<_, _>>()?;
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

fn width_and_origin<T: Argument>(call: &FunctionCall, index: usize) -> Result<(Scalar<'_>, Scalar<'_>), Error> {
    let width_type = match T::TYPE {
        ScalarType::Smallint | ScalarType::Integer => ScalarType::Bigint,
        ScalarType::Date => ScalarType::Integer,
        ScalarType::Timestamptz => ScalarType::Interval,
        scalar_type => scalar_type,
    };
    let origin_type = match T::TYPE {
        ScalarType::Smallint | ScalarType::Integer => ScalarType::Bigint,
        scalar_type => scalar_type,
    };
    let width = call.scalar(index, width_type).ok_or(Error::NullArgument("width"))?;
    let origin = call.scalar(index + 1, origin_type).ok_or(Error::NullArgument("origin"))?;
    Ok((width, origin))
}

/// `(value, index_name, width, origin, version)`.
fn bucket_token<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let index = index_argument(call, 1)?;
    let (width, origin) = width_and_origin::<T>(call, 2)?;
    let version = call.integer(4);
    let Some(value) = call.scalar(0, T::TYPE) else {
        return Ok(None);
    };
    let bucket = bucket(value, width, origin)?;
    Varlena::copy_of(&index.version(version)?.key().bucket_token(bucket)).map(Some)
}

/// `(low, high, index_name, width, origin, max_buckets)`: of all versions that make tokens.
fn bucket_tokens<T: Argument>(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let low = call.scalar(0, T::TYPE).ok_or(Error::NullBound)?;
    let high = call.scalar(1, T::TYPE).ok_or(Error::NullBound)?;
    let index = index_argument(call, 2)?;
    let (width, origin) = width_and_origin::<T>(call, 3)?;
    let limit = call.integer(5).ok_or(Error::NullArgument("max_buckets"))?;
    let (first, last) = (bucket(low, width, origin)?, bucket(high, width, origin)?);
    let mut tokens = Vec::new();
    for opened in index.live()? {
        let buckets = Bucketed::range(first, last, limit.into())?;
        tokens.extend(buckets.map(|bucket| opened.key().bucket_token(bucket)));
    }
    bytea_array_datum(tokens.iter().map(|token| &token[..])).map(Some)
}

/// `(value, steps)`.
fn normalize_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let names = call.bytea_array(1).ok_or(Error::NullArgument("steps"))?;
    if names.len() > MOST_ELEMENTS {
        return Err(SearchError::Step.into());
    }
    let parse = |name: Option<&[u8]>| {
        std::str::from_utf8(name.ok_or(SearchError::Step)?).map_err(|_| SearchError::Step)?.parse()
    };
    let steps: Vec<Step> = names.iter().map(parse).collect::<Result<_, _>>()?;
    call.bytes(0).map(|text| text_datum(&normalize(&utf8(text)?, &steps)?)).transpose()
}

/// `(distinct_values, rows, bits)`.
fn index_plan(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let count = |index| call.bigint(index).map(|count| u64::try_from(count).unwrap_or_default());
    let distinct_values = count(0).ok_or(Error::NullArgument("distinct_values"))?;
    let rows = count(1).ok_or(Error::NullArgument("rows"))?;
    let bits = call.integer(2);
    let bits = bits.map(|bits| TokenBits::new(bits.into()).map(|_| bits as u8)).transpose()?;
    let plan = Plan::new(distinct_values, rows, bits)?;
    let integer = |bits: Option<u8>| bits.map(|bits| Datum::from(i32::from(bits)));
    let columns = [
        integer(plan.bits.map(|(least, _)| least)),
        integer(plan.bits.map(|(_, most)| most)),
        integer(plan.chosen_bits),
        Some(double(plan.tokens)),
        Some(double(plan.rows_per_token)),
        Some(double(plan.false_hits)),
    ];
    Ok(Some(nullable_row_datum(call, &columns)))
}

/// `(key_id, encryption_context)`: a value without data under a new data key.
fn index_key_stub(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let key = utf8_argument(call, 0, "key_id")?.into_owned();
    KeyChoice::new(key, context_argument(call, 1)?.unwrap_or_default()).with_key(|key_id, context| {
        let mut random = [0; NONCE_BYTES];
        let cached = session::sealing(key_id, context, 0, &mut random)?;
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
