//! Settings that somebody has ousted who may not set them.
//!
//! Until the library is loaded PostgreSQL takes any value for its settings from anybody. It then drops what the role was not
//! allowed to set; but a value in the connection's options has by then replaced that of the role, the database and the
//! configuration file, which may have been a limit. Whoever does that may use no key at all. That is said by the value of
//! `allowed_keys`, so that parallel workers, which are given the values of the session and not its history, know it, too.

use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys;

use crate::error::warn;

const ALLOWED_KEYS: &CStr = c"envelope_pg.allowed_keys";

/// How a value is compared.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    /// In this unit.
    Integer(c_int),
}

const UNIT_S: Kind = Kind::Integer(pg_sys::GUC_UNIT_S as c_int);
const COUNT: Kind = Kind::Integer(0);

/// All settings, which only superusers or the configuration files can set; but not the key file of the local provider, which
/// PostgreSQL shows to superusers only: whoever ousts it has none.
const SETTINGS: [(&CStr, Kind); 17] = [
    (ALLOWED_KEYS, Kind::Text),
    (c"envelope_pg.require_named_keys", Kind::Text),
    (c"envelope_pg.kms_region", Kind::Text),
    (c"envelope_pg.kms_endpoint_url", Kind::Text),
    (c"envelope_pg.kms_profile", Kind::Text),
    (c"envelope_pg.kms_failover_regions", Kind::Text),
    (c"envelope_pg.kms_timeout", Kind::Integer(pg_sys::GUC_UNIT_MS as c_int)),
    (c"envelope_pg.kms_max_attempts", COUNT),
    (c"envelope_pg.broker", Kind::Bool),
    (c"envelope_pg.broker_idle_timeout", UNIT_S),
    (c"envelope_pg.max_kms_calls_per_statement", COUNT),
    (c"envelope_pg.stale_if_unreachable", UNIT_S),
    (c"envelope_pg.cache_ttl", UNIT_S),
    (c"envelope_pg.cache_entries", COUNT),
    (c"envelope_pg.dek_max_age", UNIT_S),
    (c"envelope_pg.dek_max_uses", COUNT),
    (c"envelope_pg.dek_max_bytes", Kind::Integer(pg_sys::GUC_UNIT_KB as c_int)),
];

/// What the settings were before they were defined.
pub struct Before(Vec<Option<CString>>);

impl Before {
    /// To be called before the settings are defined.
    pub fn define() -> Self {
        Self(SETTINGS.iter().map(|(name, _)| reset_value(name)).collect())
    }

    /// To be called after the settings are defined: whether one was ousted. `has_list`: `allowed_keys` has a value, if only the
    /// empty one.
    pub fn is_ousted(&self, has_list: bool) -> bool {
        // SAFETY: reads a variable of the process. The postmaster has no connection, and so no options.
        if !unsafe { pg_sys::IsUnderPostmaster } {
            return false;
        }
        let ousted = SETTINGS.iter().zip(&self.0).find(|((name, kind), before)| match before {
            None => false,
            Some(_) if *name == ALLOWED_KEYS && !has_list => true,
            // Set in the session only, and nothing stood behind it.
            Some(before) if before.is_empty() => false,
            Some(before) => reset_value(name).is_none_or(|now| !is_same(*kind, before, &now)),
        });
        if let Some(((name, _), _)) = ousted {
            warn(
                &format!(
                    "the connection's options have a value for {} that its role may not set",
                    name.to_string_lossy()
                ),
                "It took the place of the server's own value, so the session may use no key.".into(),
                "Leave it out of the options and of PGOPTIONS.",
            );
        }
        ousted.is_some()
    }
}

/// Gives a setting another value, for the session and its parallel workers.
pub fn override_with(name: &CStr, value: &CStr) {
    // SAFETY: C strings. A source of this rank is the value that RESET restores, and no transaction's end takes it back.
    unsafe {
        let (suset, overriding) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
        pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), suset, overriding);
    }
}

/// What RESET would restore; `None` if there is no such setting.
fn reset_value(name: &CStr) -> Option<CString> {
    // SAFETY: a static C string; the results are C strings that live until the next call, or NULL.
    unsafe {
        if pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() {
            return None;
        }
        let value = pg_sys::GetConfigOptionResetString(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Whether two texts are the same value. What is no value was not taken.
fn is_same(kind: Kind, one: &CStr, other: &CStr) -> bool {
    match kind {
        Kind::Text => one == other,
        Kind::Bool => {
            let parse = |text: &CStr| {
                let mut value = false;
                // SAFETY: a C string, and where to write the value to.
                unsafe { pg_sys::parse_bool(text.as_ptr(), &mut value) }.then_some(value)
            };
            parse(one).is_some_and(|value| parse(other) == Some(value))
        }
        Kind::Integer(unit) => {
            let parse = |text: &CStr| {
                let mut value = 0;
                // SAFETY: a C string, and where to write the value to; no hint is wanted.
                unsafe { pg_sys::parse_int(text.as_ptr(), &mut value, unit, std::ptr::null_mut()) }.then_some(value)
            };
            parse(one).is_some_and(|value| parse(other) == Some(value))
        }
    }
}
