//! Settings that somebody has ousted who may not set them.
//!
//! Until the library is loaded PostgreSQL takes any value for its settings from anybody. It then drops what the role was not
//! allowed to set; but a value in the connection's options has by then replaced that of the role, the database and the
//! configuration file, which may have been a limit. Whoever does that may use no key at all. That is said by values of
//! settings, so that parallel workers, which are given the values of the session and not its history, know it, too.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

const PREFIX: &str = "envelope_pg.";

/// The settings that have a value of the connection's options. To be called before the settings are defined.
pub fn from_options() -> Vec<String> {
    let of_client = |(name, source): (String, _)| (source == pg_sys::GucSource::PGC_S_CLIENT).then_some(name);
    sources().into_iter().filter_map(of_client).collect()
}

/// One of these whose value PostgreSQL has dropped, if there is one. To be called after the settings are defined.
pub fn dropped(from_options: Vec<String>) -> Option<String> {
    if from_options.is_empty() {
        return None;
    }
    let sources = sources();
    let is_kept = |setting: &String| {
        sources.iter().any(|(name, source)| name == setting && *source == pg_sys::GucSource::PGC_S_CLIENT)
    };
    from_options.into_iter().find(|setting| !is_kept(setting))
}

/// Gives a setting another value, for the session and its parallel workers.
pub fn override_with(name: &CStr, value: &CStr) {
    // SAFETY: C strings. A source of this rank is the value that RESET restores, and no transaction's end takes it back.
    unsafe {
        let (suset, overriding) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
        pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), suset, overriding);
    }
}

/// The settings of the extension that exist, in lower case, and where the values that RESET would restore are from.
fn sources() -> Vec<(String, pg_sys::GucSource::Type)> {
    let mut count: c_int = 0;
    // SAFETY: PostgreSQL's own table of settings, and how many it has.
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let settings = unsafe {
        count += pg_sys::GetNumConfigOptions();
        pg_sys::get_guc_variables()
    };
    // SAFETY: a copy of it, and how many settings it has.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    let settings = unsafe { pg_sys::get_guc_variables(&mut count) };
    if settings.is_null() {
        return Vec::new();
    }
    // SAFETY: an array of so many pointers to settings, each with a name that is a C string; nobody changes it meanwhile.
    let settings = unsafe { std::slice::from_raw_parts(settings, count.unsigned_abs() as usize) };
    let describe = |setting: &*mut pg_sys::config_generic| {
        // SAFETY: as above.
        let (name, source) = unsafe { (CStr::from_ptr((**setting).name), (**setting).reset_source) };
        let name = name.to_string_lossy().to_ascii_lowercase();
        name.starts_with(PREFIX).then_some((name, source))
    };
    settings.iter().filter_map(describe).collect()
}
