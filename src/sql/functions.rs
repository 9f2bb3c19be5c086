//! The SQL functions that encrypt and decrypt.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use envelope_core::context::EncryptionContext;
use envelope_core::error::{ArgumentError, ValueError};
use envelope_core::format::edited;
use envelope_core::format::{Envelope, Head, NONCE_BYTES, ValueType};
use envelope_core::keys::KeyId;
use pgrx::pg_sys::Datum;

use crate::error::Error;
use crate::pg::encoding::{from_utf8, to_utf8};
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::jsonb::jsonb_from_text;
use crate::pg::made::Made;
use crate::pg::room;
use crate::pg::settings;
use crate::pg::typed;
use crate::pg::varlena::Varlena;
use crate::session;
use crate::session::named_keys::{self, KeyChoice};

/// An aad that any process has room for.
const MAX_SHORT_AAD_BYTES: usize = 64 << 10;
/// Longer than any key id.
const MAX_NAME_BYTES: usize = 4_096;

sql_functions! {
    env_encrypt_text, pg_finfo_env_encrypt_text => encrypt_text;
    env_encrypt_bytea, pg_finfo_env_encrypt_bytea => encrypt_bytea;
    env_encrypt_jsonb, pg_finfo_env_encrypt_jsonb => encrypt_jsonb;
    env_to_jsonb, pg_finfo_env_to_jsonb => typed::argument_as_jsonb;
    env_decrypt_text, pg_finfo_env_decrypt_text => decrypt_text;
    env_decrypt_bytea, pg_finfo_env_decrypt_bytea => decrypt_bytea;
    env_decrypt_jsonb, pg_finfo_env_decrypt_jsonb => decrypt_jsonb;
}

fn encrypt_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let options = EncryptOptions::of(call)?;
    call.bytes(0)
        .map(|text| {
            call.prefetch(text);
            check_not_encrypted(edited::is_text_of_value(text))?;
            encrypt(ValueType::Text, &to_utf8(text)?, &options)
        })
        .transpose()
}

fn encrypt_bytea(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let options = EncryptOptions::of(call)?;
    call.bytes(0)
        .map(|bytes| {
            call.prefetch(bytes);
            check_not_encrypted(edited::is_value(bytes))?;
            encrypt(ValueType::Bytea, bytes, &options)
        })
        .transpose()
}

fn encrypt_jsonb(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let options = EncryptOptions::of(call)?;
    call.jsonb_text(0)
        .map(|json| {
            check_not_encrypted(edited::is_json_of_value(json.to_bytes()))?;
            encrypt(ValueType::Jsonb, &to_utf8(json.to_bytes())?, &options)
        })
        .transpose()
}

/// The arguments behind the plaintext.
struct EncryptOptions<'a> {
    key: Rc<KeyArguments>,
    aad: Option<Cow<'a, [u8]>>,
}

impl<'a> EncryptOptions<'a> {
    // Inlined, as what is returned in memory is copied in other pieces than it was written in (docs/PERFORMANCE.md).
    #[inline(always)]
    fn of(call: &'a FunctionCall) -> Result<Self, Error> {
        Ok(Self { key: KeyArguments::of(call, "key_id", Some(2))?, aad: aad_argument(call, 3)? })
    }
}

/// What to encrypt under, and the arguments that say so, as they came. Mostly they are the same for each row, and for one statement
/// after the other, and a context costs more to parse than a short value to encrypt.
pub struct KeyArguments {
    /// What they choose.
    pub choice: KeyChoice,
    key_id_argument: Box<[u8]>,
    context_argument: Option<Box<[u8]>>,
}

/// So many are kept: of the columns of a row, or of some tenants.
const KEPT_KEY_ARGUMENTS: usize = 4;

thread_local! {
    /// What this session encrypted under lately, the last one first.
    static KEY_ARGUMENTS: RefCell<Vec<Rc<KeyArguments>>> = const { RefCell::new(Vec::new()) };
}

impl KeyArguments {
    /// The key is the second argument, called `name`; `context_index` is where an encryption context may stand.
    ///
    /// # Errors
    /// [`Error::NullArgument`], and what is wrong with them.
    pub fn of(call: &FunctionCall, name: &'static str, context_index: Option<usize>) -> Result<Rc<Self>, Error> {
        let key_id = call.bytes(1).ok_or(Error::NullArgument(name))?;
        let context_index = context_index.filter(|index| *index < call.arguments());
        let context = context_index
            .map(|index| call.bytes(index).ok_or(Error::NullArgument("encryption_context")))
            .transpose()?;
        // What a name means, and for whom, is looked at again each time.
        let fits = |kept: &&Rc<Self>| *kept.key_id_argument == *key_id && kept.context_argument.as_deref() == context;
        if let Some(kept) = KEY_ARGUMENTS.with_borrow(|kept| kept.iter().find(fits).cloned()) {
            return Ok(kept);
        }
        let key = utf8_argument(call, 1, name)?.into_owned();
        let parsed = context_index.map(|index| context_argument(call, index)).transpose()?.flatten();
        let arguments = Rc::new(Self {
            choice: KeyChoice::new(key, parsed.unwrap_or_default()),
            key_id_argument: key_id.into(),
            context_argument: context.map(Into::into),
        });
        // Nothing else, which may be a plaintext in the wrong place.
        if arguments.choice.names_a_key() {
            KEY_ARGUMENTS.with_borrow_mut(|kept| {
                kept.truncate(KEPT_KEY_ARGUMENTS - 1);
                kept.insert(0, Rc::clone(&arguments));
            });
        }
        Ok(arguments)
    }
}

/// The encryption context, if the overload that was called has one.
pub fn context_argument(call: &FunctionCall, index: usize) -> Result<Option<EncryptionContext>, Error> {
    if call.arguments() <= index {
        return Ok(None);
    }
    let json = call.jsonb_text(index).ok_or(Error::NullArgument("encryption_context"))?;
    let json = to_utf8(json.to_bytes())?;
    Ok(Some(EncryptionContext::from_json(&String::from_utf8_lossy(&json))?))
}

/// A key id or a name, which must not be NULL, in UTF-8.
///
/// # Errors
/// [`Error::NullArgument`].
pub fn utf8_argument<'a>(call: &'a FunctionCall, index: usize, name: &'static str) -> Result<Cow<'a, str>, Error> {
    let text = call.bytes(index).ok_or(Error::NullArgument(name))?;
    if let Some(beginning) = text.get(..=MAX_NAME_BYTES) {
        // No copy of what may be as large as a value.
        KeyId::parse(&String::from_utf8_lossy(beginning))?;
    }
    utf8(text)
}

/// Text of the database's encoding in UTF-8, copied at most once.
///
/// # Errors
/// Those of [`to_utf8`].
pub fn utf8(text: &[u8]) -> Result<Cow<'_, str>, Error> {
    // to_utf8 gives UTF-8: nothing is lost.
    Ok(match to_utf8(text)? {
        Cow::Borrowed(text) => String::from_utf8_lossy(text),
        Cow::Owned(text) => Cow::Owned(
            String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    })
}

/// The key that an argument means: what a named key stands for, anything else as it is.
///
/// # Errors
/// [`Error::NullArgument`], and those of [`named_keys::key_id`].
pub fn key_id_argument(call: &FunctionCall, index: usize, name: &'static str) -> Result<String, Error> {
    Ok(named_keys::key_id(&utf8_argument(call, index, name)?)?.into_owned())
}

/// The aad in UTF-8, if the overload that was called has one: the same whatever the database's encoding.
///
/// # Errors
/// [`Error::NullArgument`].
// Inlined, as what is returned in memory is copied in other pieces than it was written in (docs/PERFORMANCE.md).
#[inline(always)]
pub fn aad_argument(call: &FunctionCall, index: usize) -> Result<Option<Cow<'_, [u8]>>, Error> {
    if call.arguments() <= index { Ok(None) } else { given_aad(call, index).map(Some) }
}

fn given_aad(call: &FunctionCall, index: usize) -> Result<Cow<'_, [u8]>, Error> {
    let aad = to_utf8(call.bytes(index).ok_or(Error::NullArgument("aad"))?)?;
    check_room_for(&aad)?;
    Ok(aad)
}

/// Whether there is room for a copy of an aad behind a header: the cipher wants both in one piece.
///
/// # Errors
/// [`Error::OutOfMemory`].
#[inline]
pub fn check_room_for(aad: &[u8]) -> Result<(), Error> {
    // What is shorter is bounded.
    if aad.len() > MAX_SHORT_AAD_BYTES { room::check(2 * aad.len()) } else { Ok(()) }
}

/// Who encrypts a value again nearly always meant to bring it under another key.
fn check_not_encrypted(is_value: bool) -> Result<(), Error> {
    if is_value && !settings::allow_double_encryption() { Err(Error::AlreadyEncrypted) } else { Ok(()) }
}

fn encrypt(value_type: ValueType, plaintext: &[u8], options: &EncryptOptions<'_>) -> Result<Datum, Error> {
    let sealed = seal(value_type, plaintext, &options.key.choice, options.aad.as_deref());
    sealed.map(|value| value.datum()).map_err(|error| match error {
        Error::Argument(ArgumentError::KeyId(_)) if is_key_id(plaintext) => Error::SwappedArguments,
        error => error,
    })
}

fn is_key_id(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| KeyId::parse(text).is_ok())
}

/// Encrypts a plaintext, text and JSON in UTF-8, into a bytea.
///
/// # Errors
/// Whatever keeps the data key from being had, and [`Error::TooLarge`].
pub fn seal(value_type: ValueType, plaintext: &[u8], choice: &KeyChoice, aad: Option<&[u8]>) -> Result<Made, Error> {
    choice.with_key(|key_id, context| {
        let mut random = [0; NONCE_BYTES];
        let cached = session::sealing(key_id, context, plaintext.len(), &mut random)?;
        let data_key = cached.data_key();
        let value_bytes = data_key.value_bytes(plaintext.len());
        let mut value = Varlena::with_room(value_bytes)?;
        data_key.seal(value_type, &random, aad, plaintext, value.as_mut_slice());
        Ok(Made::bytea(value, value_bytes))
    })
}

pub fn decrypt_text(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    decrypt(call, ValueType::Text, |mut plaintext, bytes| {
        let converted = match from_utf8(&plaintext.as_mut_slice()[..bytes])? {
            Cow::Borrowed(_) => None,
            Cow::Owned(converted) => Some(converted),
        };
        match converted {
            None => Ok(plaintext.finish(bytes)),
            Some(converted) => Varlena::copy_of(&converted),
        }
    })
}

pub fn decrypt_bytea(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    decrypt(call, ValueType::Bytea, |plaintext, bytes| Ok(plaintext.finish(bytes)))
}

pub fn decrypt_jsonb(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    decrypt(call, ValueType::Jsonb, |mut plaintext, bytes| {
        jsonb_from_text(&from_utf8(&plaintext.as_mut_slice()[..bytes])?)
    })
}

/// Whether a value is bound to an aad is said in its head, so that it can be told apart from damage.
///
/// # Errors
/// [`Error::AadMissing`], [`Error::AadSuperfluous`].
pub fn check_aad(head: &Head<'_>, aad: Option<&[u8]>) -> Result<(), Error> {
    match (head.flags.aad, aad.is_some()) {
        (true, false) => Err(Error::AadMissing),
        (false, true) => Err(Error::AadSuperfluous),
        _ => Ok(()),
    }
}

fn decrypt(
    call: &FunctionCall,
    wanted: ValueType,
    finish: impl FnOnce(Varlena, usize) -> Result<Datum, Error>,
) -> Result<Option<Datum>, Error> {
    let aad = aad_argument(call, 1)?;
    let Some(value) = call.bytes(0) else {
        return Ok(None);
    };
    call.prefetch(value);
    let envelope = Envelope::parse(value)?;
    let found = envelope.head.value_type;
    if found != wanted {
        return Err(ValueError::WrongType { found, wanted }.into());
    }
    check_aad(&envelope.head, aad.as_deref())?;
    let cached = session::opening_key(&envelope.head)?;
    let mut plaintext = Varlena::with_room(envelope.ciphertext.len())?;
    let bytes = cached.data_key().open(&envelope, aad.as_deref(), plaintext.as_mut_slice())?;
    finish(plaintext, bytes).map(Some)
}
