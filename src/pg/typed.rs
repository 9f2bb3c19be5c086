//! Values of types that have no functions of their own here, as text or JSON that is the same in every session.
//!
//! Numbers and booleans are JSON numbers and booleans, where JSON has them; all else is a JSON string of the type's output, under the
//! settings that pg_dump reads under, with UTC as the time zone. So `(value #>> '{}')::type` gives back what it was.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};

use envelope_core::format::ValueType;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::error::Error;
use crate::pg::encoding::{from_utf8, to_utf8};
use crate::pg::function_call::FunctionCall;
use crate::pg::jsonb::{JsonbDatum, jsonb_from_text};
use crate::pg::types::output_function;
use crate::pg::varlena::VarlenaDatum;

/// What a column of some type is encrypted as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plaintext {
    /// bytea: its bytes.
    Bytea,
    /// text and varchar: their text.
    Text,
    /// jsonb: its JSON text.
    Jsonb,
    /// char(n), other string types, enums and json: what they are as text, from this output function.
    AsText(Oid),
    /// Any other type: JSON.
    AsJson(Oid),
}

impl Plaintext {
    /// That of a type that is no domain; `None` if its text depends on more than settings that can be fixed.
    pub fn of_type(base_type: Oid) -> Option<Self> {
        match base_type {
            pg_sys::BYTEAOID => return Some(Self::Bytea),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => return Some(Self::Text),
            pg_sys::JSONBOID => return Some(Self::Jsonb),
            _ => {}
        }
        // SAFETY: look a type of the catalog up.
        let (kind, category, element) = unsafe {
            let (mut category, mut is_preferred) = (0, false);
            pg_sys::get_type_category_preferred(base_type, &mut category, &mut is_preferred);
            (pg_sys::get_typtype(base_type) as u8, category as u8, pg_sys::get_base_element_type(base_type))
        };
        if kind == b'p' || depends_on_catalog(base_type) || depends_on_catalog(element) {
            return None;
        }
        if category == b'S' || kind == b'e' || base_type == pg_sys::JSONOID {
            return Some(Self::AsText(output_function(base_type)));
        }
        Some(Self::AsJson(base_type))
    }

    /// The type that encrypted values hold.
    #[must_use]
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Bytea => ValueType::Bytea,
            Self::Text | Self::AsText(_) => ValueType::Text,
            Self::Jsonb | Self::AsJson(_) => ValueType::Jsonb,
        }
    }

    /// The plaintext of a value, in the database's encoding.
    ///
    /// # Safety
    /// The value is of the type, is not NULL, and lives as long as `'a`.
    ///
    /// # Errors
    /// If it is no text in the database's encoding.
    pub unsafe fn bytes<'a>(self, value: Datum) -> Result<Cow<'a, [u8]>, Error> {
        // SAFETY: by contract, in all of them.
        unsafe {
            Ok(match self {
                Self::Bytea | Self::Text => VarlenaDatum::new(value).bytes().into(),
                Self::Jsonb => JsonbDatum::new(value).text().to_bytes().into(),
                Self::AsText(output) => {
                    let text = CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)).to_bytes();
                    // As the cast from char(n) to text has it.
                    let is_char = output == pg_sys::Oid::from(pg_sys::F_BPCHAROUT);
                    let blanks = text.iter().rev().take_while(|byte| is_char && **byte == b' ').count();
                    text[..text.len() - blanks].into()
                }
                Self::AsJson(base_type) => {
                    let jsonb = jsonb_from_text(json(base_type, value)?.as_bytes())?;
                    JsonbDatum::new(jsonb).text().to_bytes().into()
                }
            })
        }
    }
}

/// The jsonb of the function's argument, of whatever type; `None` for NULL.
///
/// # Errors
/// [`Error::NoStableText`].
pub fn argument_as_jsonb(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let Some(value) = call.datum(0) else {
        return Ok(None);
    };
    // SAFETY: the arguments of a live call; PostgreSQL knows the type of a polymorphic one.
    let (base_type, plaintext) = unsafe {
        let argument_type = pg_sys::get_fn_expr_argtype((*call.fcinfo()).flinfo, 0);
        let base_type = pg_sys::getBaseType(argument_type);
        (base_type, Plaintext::of_type(base_type))
    };
    if plaintext == Some(Plaintext::Jsonb) {
        return Ok(Some(value));
    }
    if plaintext.is_none() {
        return Err(Error::NoStableText);
    }
    // SAFETY: the argument is of this type, and lives as long as the call.
    Ok(Some(jsonb_from_text(unsafe { json(base_type, value) }?.as_bytes())?))
}

/// # Safety
/// The value is of the type, and not NULL.
unsafe fn json(base_type: Oid, value: Datum) -> Result<CString, Error> {
    if base_type == pg_sys::BOOLOID {
        return Ok(if value.value() != 0 { c"true" } else { c"false" }.to_owned());
    }
    // SAFETY: by contract.
    let text = to_utf8(unsafe { stable_output(base_type, value) })?;
    let text = String::from_utf8_lossy(&text);
    let is_number = matches!(
        base_type,
        pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::FLOAT4OID
            | pg_sys::FLOAT8OID
    );
    // Neither NaN nor infinity is a number of JSON, and jsonb has no negative zero.
    let is_json = base_type == pg_sys::JSONOID
        || (is_number && text != "-0" && text.ends_with(|char: char| char.is_ascii_digit()));
    let json = if is_json { text } else { serde_json::Value::from(text).to_string().into() };
    CString::new(from_utf8(json.as_bytes())?).map_err(|_| Error::NotInEncoding("UTF8".into()))
}

/// The output of a value under settings of ours.
///
/// # Safety
/// The value is of the type, and not NULL.
unsafe fn stable_output<'a>(base_type: Oid, value: Datum) -> &'a [u8] {
    let output = output_function(base_type);
    // SAFETY: calls the output function of the type with a value of it. If that raises an error, the end of the subtransaction
    // gives the settings back.
    unsafe {
        let level = (!is_independent(base_type)).then(fix_settings);
        let text = CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value));
        if let Some(level) = level {
            pg_sys::AtEOXact_GUC(true, level);
        }
        text.to_bytes()
    }
}

/// Types whose output no setting changes.
fn is_independent(base_type: Oid) -> bool {
    matches!(
        base_type,
        pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::UUIDOID
            | pg_sys::INETOID
            | pg_sys::JSONOID
    )
}

/// Sets what output functions look at until the level that is returned ends; as postgres_fdw does, and pg_dump.
fn fix_settings() -> c_int {
    // SAFETY: static C strings that are valid values of settings that everybody may set.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in [
            (c"datestyle", c"ISO, YMD"),
            (c"intervalstyle", c"postgres"),
            (c"extra_float_digits", c"3"),
            (c"timezone", c"UTC"),
            (c"bytea_output", c"hex"),
        ] {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        level
    }
}

/// Names of the catalog, and money, which the locale writes.
fn depends_on_catalog(type_: Oid) -> bool {
    matches!(
        type_,
        pg_sys::MONEYOID
            | pg_sys::REGPROCOID
            | pg_sys::REGPROCEDUREOID
            | pg_sys::REGOPEROID
            | pg_sys::REGOPERATOROID
            | pg_sys::REGCLASSOID
            | pg_sys::REGTYPEOID
            | pg_sys::REGROLEOID
            | pg_sys::REGNAMESPACEOID
            | pg_sys::REGCONFIGOID
            | pg_sys::REGDICTIONARYOID
            | pg_sys::REGCOLLATIONOID
    )
}
