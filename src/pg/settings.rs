//! The settings `envelope_pg.*`. All that could redirect or widen the use of keys is for superusers or the server's
//! configuration files: who can name another endpoint can plant data keys that he knows.

mod ousted;

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use envelope_broker::protocol;
use envelope_broker::server::Config;
use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::Limits;
use envelope_core::cache::bounded::Bounds;
use envelope_core::keys::is_region;
use envelope_kms::aws;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;

use crate::pg::report::warn;

static KMS_REGION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KMS_ENDPOINT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KMS_PROFILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KMS_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static KMS_MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(3);
static KMS_MAX_CALLS_PER_SECOND: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static KMS_FAILOVER_REGIONS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static MAX_KMS_CALLS_PER_STATEMENT: GucSetting<i32> = GucSetting::<i32>::new(0);
static BROKER: GucSetting<bool> = GucSetting::<bool>::new(true);
/// NULL until somebody who may has set it: a Boolean could not tell that from `off`.
static REQUIRE_NAMED_KEYS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static AUDIT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"off"));
static BROKER_IDLE_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(24 * 60 * 60);
static LOCAL_KEYRING: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// NULL until somebody who may has set it, if only to the empty list.
static ALLOWED_KEYS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DEK_MAX_AGE_S: GucSetting<i32> = GucSetting::<i32>::new(24 * 60 * 60);
static DEK_MAX_USES: GucSetting<i32> = GucSetting::<i32>::new(0);
static DEK_MAX_KB: GucSetting<i32> = GucSetting::<i32>::new(0);
static ALLOW_DOUBLE_ENCRYPTION: GucSetting<bool> = GucSetting::<bool>::new(false);
static CACHE_ENTRIES: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static LOOK_AHEAD: GucSetting<bool> = GucSetting::<bool>::new(true);
static CACHE_MEMORY_KB: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);
static BROKER_MEMORY_KB: GucSetting<i32> = GucSetting::<i32>::new(160 * 1024);
static CACHE_TTL_S: GucSetting<i32> = GucSetting::<i32>::new(15 * 60);
static STALE_IF_UNREACHABLE_S: GucSetting<i32> = GucSetting::<i32>::new(60 * 60);

/// An attempt has kms_timeout divided by their number: more of them would give up before KMS can answer.
const MAX_ATTEMPTS: i32 = 20;
/// The largest quota that AWS has for a Region.
const MAX_CALLS_PER_SECOND: i32 = 100_000;
/// Room for a data key with the largest encryption context.
const MIN_MEMORY_KB: i32 = 1024;

thread_local! {
    /// Changes with every assignment of `allowed_keys`, also by SET LOCAL and at its end.
    static ALLOWED_KEYS_GENERATION: Cell<u64> = const { Cell::new(0) };
    /// `require_named_keys` and `audit` as they were last assigned.
    static USE_CHECKS: Cell<UseChecks> = const { Cell::new(UseChecks { named_keys_required: false, audit: Audit::Off }) };
}

/// See [`use_checks`].
#[derive(Clone, Copy)]
pub struct UseChecks {
    /// `require_named_keys`.
    pub named_keys_required: bool,
    /// `audit`.
    pub audit: Audit,
}

/// How the providers are reached, and what tells that from other settings in short.
pub struct KmsSettings {
    settings: envelope_kms::Settings,
    /// See [`protocol::fingerprint`].
    pub fingerprint: u64,
}

impl std::ops::Deref for KmsSettings {
    type Target = envelope_kms::Settings;

    fn deref(&self) -> &Self::Target {
        &self.settings
    }
}

/// How the providers are reached, as the configuration files last said: that is the only way to change these settings.
pub fn kms_settings() -> Rc<KmsSettings> {
    thread_local! {
        static KEPT: RefCell<Option<(pg_sys::TimestampTz, Rc<KmsSettings>)>> = const { RefCell::new(None) };
    }
    // SAFETY: reads a variable of the backend, which it sets whenever it has read the files.
    let loaded = unsafe { pg_sys::PgReloadTime };
    KEPT.with_borrow_mut(|kept| match kept {
        Some((when, settings)) if *when == loaded => Rc::clone(settings),
        _ => {
            let settings = read_kms_settings();
            let settings = Rc::new(KmsSettings { fingerprint: protocol::fingerprint(&settings), settings });
            *kept = Some((loaded, Rc::clone(&settings)));
            settings
        }
    })
}

fn read_kms_settings() -> envelope_kms::Settings {
    envelope_kms::Settings {
        aws: aws::Settings {
            region: text(&KMS_REGION),
            endpoint_url: text(&KMS_ENDPOINT_URL),
            profile: text(&KMS_PROFILE),
            timeout: kms_timeout(),
            max_attempts: KMS_MAX_ATTEMPTS.get().unsigned_abs(),
            max_calls_per_second: NonZeroU32::new(KMS_MAX_CALLS_PER_SECOND.get().unsigned_abs()),
            failover_regions: text(&KMS_FAILOVER_REGIONS)
                .map(|regions| regions.split(',').map(|region| region.trim().to_owned()).collect())
                .unwrap_or_default(),
        },
        local_keyring: text(&LOCAL_KEYRING).map(PathBuf::from),
    }
}

/// The time limit of a KMS call.
pub fn kms_timeout() -> Duration {
    Duration::from_millis(unsigned(&KMS_TIMEOUT_MS))
}

/// How long a data key may be used before its provider is asked again: read for each value.
pub fn cache_ttl() -> Duration {
    Duration::from_secs(unsigned(&CACHE_TTL_S))
}

/// How long and how much a data key may be used: read for each value that is sealed.
pub fn limits() -> Limits {
    let unless_zero = |limit: u64| (limit > 0).then_some(limit);
    Limits {
        // Half of the memory each for those that seal and those that open.
        bounds: Bounds { entries: unsigned(&CACHE_ENTRIES) as usize, bytes: kilobytes(&CACHE_MEMORY_KB) / 2 },
        ttl: cache_ttl(),
        stale_if_unreachable: Duration::from_secs(unsigned(&STALE_IF_UNREACHABLE_S)),
        max_age: Duration::from_secs(unsigned(&DEK_MAX_AGE_S)),
        max_uses: unless_zero(unsigned(&DEK_MAX_USES)),
        max_bytes: unless_zero(unsigned(&DEK_MAX_KB) * 1024),
    }
}

/// Whether sessions share the broker's data keys.
pub fn broker() -> bool {
    BROKER.get()
}

/// Whether data keys are asked for before a value needs them.
pub fn look_ahead() -> bool {
    LOOK_AHEAD.get()
}

/// Whether a key must be a named key to be used.
pub fn require_named_keys() -> bool {
    USE_CHECKS.get().named_keys_required
}

/// What `audit` is set to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Audit {
    /// Nothing is written.
    #[default]
    Off,
    /// What a role was refused.
    Denied,
    /// Each use of a key.
    All,
}

/// What a statement's line in the log is about.
pub fn audit() -> Audit {
    USE_CHECKS.get().audit
}

/// What is to be looked at when a data key is used: read for each value.
#[inline]
pub fn use_checks() -> UseChecks {
    USE_CHECKS.get()
}

/// Whether what is encrypted already may be encrypted again.
pub fn allow_double_encryption() -> bool {
    ALLOW_DOUBLE_ENCRYPTION.get()
}

/// What the broker follows.
pub fn broker_config() -> Config {
    let limits = limits();
    Config {
        kms: read_kms_settings(),
        useful_for: limits.ttl.saturating_add(limits.stale_if_unreachable),
        dek_max_age: limits.max_age,
        memory: kilobytes(&BROKER_MEMORY_KB),
        idle_timeout: Duration::from_secs(unsigned(&BROKER_IDLE_TIMEOUT_S)),
    }
}

/// How many KMS calls one statement may make; `None`: any number.
pub fn max_kms_calls_per_statement() -> Option<u64> {
    let calls = unsigned(&MAX_KMS_CALLS_PER_STATEMENT);
    (calls > 0).then_some(calls)
}

/// Says whether `allowed_keys` was assigned since: parse it again only then.
pub fn allowed_keys_generation() -> u64 {
    ALLOWED_KEYS_GENERATION.get()
}

/// The keys that may be used here and now.
pub fn allowed_keys() -> AllowedKeys {
    match ALLOWED_KEYS.get() {
        Some(list) => AllowedKeys::parse(&list.to_string_lossy()).expect("the check hook let no other list in"),
        None => AllowedKeys::all(),
    }
}

/// Never negative: the lower bounds of the integer settings are 0 or 1.
fn unsigned(setting: &GucSetting<i32>) -> u64 {
    u64::from(setting.get().unsigned_abs())
}

fn kilobytes(setting: &GucSetting<i32>) -> usize {
    unsigned(setting) as usize * 1024
}

/// An empty setting is none. Settings that are not UTF-8 fail where they are used, as no region or file has such a name.
fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().map(|text| text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

/// Defines all settings.
pub fn define() {
    let from_options = ousted::from_options();
    define_text(
        c"envelope_pg.kms_region",
        c"AWS region of KMS keys that are not named by ARN.",
        c"Empty: the region of the AWS configuration (AWS_REGION, profile, instance). An ARN brings its own region.",
        &KMS_REGION,
        GucFlags::default(),
    );
    // SAFETY: the hook is guarded, and does what PostgreSQL's guc.h asks of such hooks.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"envelope_pg.kms_endpoint_url",
            c"URL of the KMS endpoint.",
            c"Empty: AWS's own for the region. Set it for a VPC endpoint or an emulator. Whoever answers there makes the data keys.",
            &KMS_ENDPOINT_URL,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_endpoint_url),
            None,
            None,
        );
    }
    define_text(
        c"envelope_pg.kms_profile",
        c"Profile of the AWS configuration files.",
        c"Empty: the standard credential chain (environment, profile, web identity, container, instance).",
        &KMS_PROFILE,
        GucFlags::default(),
    );
    define_text(
        c"envelope_pg.local_keyring",
        c"Path of the key file of the local key provider.",
        c"Empty: the local provider is off. A relative path is relative to the data directory, where base backups have it beside the data. For trying out and for tests.",
        &LOCAL_KEYRING,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_bool_guc(
        c"envelope_pg.broker",
        c"Whether the sessions of the server share data keys through a background worker.",
        c"Off: each session calls KMS itself and has data keys of its own.",
        &BROKER,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"envelope_pg.allow_double_encryption",
        c"Whether an encrypted value may be encrypted again.",
        c"Off: env_encrypt and the encrypting trigger refuse it, because it is nearly always a mistake.",
        &ALLOW_DOUBLE_ENCRYPTION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"envelope_pg.look_ahead",
        c"Whether a scan asks for the data keys that it is about to need.",
        c"Up to 16 at a time: those of the values on the same page, and those that followed in an earlier scan.",
        &LOOK_AHEAD,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_integer(
        c"envelope_pg.broker_idle_timeout",
        c"How long the background worker stays without a request.",
        c"With it go the current data keys: the next session that needs one has new ones made.",
        &BROKER_IDLE_TIMEOUT_S,
        1,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    define_integer(
        c"envelope_pg.kms_timeout",
        c"Time limit of one KMS call.",
        c"Credentials, connection and retries are inside it. A statement that hits it fails with SQLSTATE 58000. Keep it below statement_timeout.",
        &KMS_TIMEOUT_MS,
        1,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"envelope_pg.kms_max_attempts",
        c"How often a KMS call is tried, the first time included.",
        c"Throttled and failed attempts are repeated with exponential backoff and jitter, within kms_timeout. One attempt may take kms_timeout divided by this.",
        &KMS_MAX_ATTEMPTS,
        1,
        MAX_ATTEMPTS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"envelope_pg.kms_max_calls_per_second",
        c"How many KMS calls all sessions of the server make in a second.",
        c"0: any number. Further calls wait, the sessions by turns, for half of kms_timeout at most. Retries of a call are not counted.",
        &KMS_MAX_CALLS_PER_SECOND,
        0,
        MAX_CALLS_PER_SECOND,
        GucContext::Sighup,
        GucFlags::default(),
    );
    define_integer(
        c"envelope_pg.max_kms_calls_per_statement",
        c"How many KMS calls one statement may make.",
        c"0: any number. A statement that needs more fails with SQLSTATE 54000, so that no scan runs up a bill.",
        &MAX_KMS_CALLS_PER_STATEMENT,
        0,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_integer(
        c"envelope_pg.stale_if_unreachable",
        c"How much longer than cache_ttl a session uses a data key while KMS is unreachable or throttles.",
        c"0: not at all; then an outage longer than cache_ttl stops reading and writing. Never after KMS has answered that access is denied or the key is out of use.",
        &STALE_IF_UNREACHABLE_S,
        0,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    define_integer(
        c"envelope_pg.dek_max_age",
        c"How long a data key encrypts new values.",
        c"Lower: more data keys and KMS calls, fewer values under each. The broker follows the configuration file; a role can have a lower one.",
        &DEK_MAX_AGE_S,
        1,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    define_integer(
        c"envelope_pg.dek_max_uses",
        c"How many values one data key encrypts.",
        c"0: any number; the cipher itself is safe for 2^80. Of all sessions together. Each takes a sixteenth of it at a time, and what it does not use is lost.",
        &DEK_MAX_USES,
        0,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_integer(
        c"envelope_pg.dek_max_bytes",
        c"How much plaintext one data key encrypts.",
        c"0: any amount. Of all sessions together, as dek_max_uses.",
        &DEK_MAX_KB,
        0,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    define_integer(
        c"envelope_pg.cache_entries",
        c"How many data keys a session keeps, within cache_memory.",
        c"One that was dropped and is needed again is asked for again: of the broker, or of KMS if there is none.",
        &CACHE_ENTRIES,
        1,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_integer(
        c"envelope_pg.cache_memory",
        c"How much memory a session keeps data keys in.",
        c"About 2 kB each: half of it is for those that encrypt, half for those that decrypt.",
        &CACHE_MEMORY_KB,
        MIN_MEMORY_KB,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    define_integer(
        c"envelope_pg.broker_memory",
        c"How much memory the broker keeps data keys in.",
        c"About 1.5 kB each. One that was dropped and is needed again is a KMS call.",
        &BROKER_MEMORY_KB,
        MIN_MEMORY_KB,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    define_integer(
        c"envelope_pg.cache_ttl",
        c"How long a session uses a data key before it asks KMS again.",
        c"It asks ahead of time, in the background. A key that was disabled or a permission that was revoked is in effect after this time at the latest. A named key may have a time of its own: its option cache_ttl.",
        &CACHE_TTL_S,
        1,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    // SAFETY: the hook is guarded, and does what PostgreSQL's guc.h asks of such hooks.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"envelope_pg.kms_failover_regions",
            c"AWS regions, with commas between them, to turn to when a multi-Region key's own region is unreachable.",
            c"Empty: none. The key needs a replica there. Other keys than multi-Region keys (mrk-...) have none.",
            &KMS_FAILOVER_REGIONS,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_regions),
            None,
            None,
        );
    }
    // SAFETY: both hooks are guarded, and do what PostgreSQL's guc.h asks of such hooks.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"envelope_pg.allowed_keys",
            c"The keys that may be used: key ids with commas between them.",
            c"Empty: all; none: no key. A key that a statement names, and the key ARN behind it, must both be in the list.",
            &ALLOWED_KEYS,
            GucContext::Suset,
            GucFlags::default(),
            Some(check_allowed_keys),
            Some(assign_allowed_keys),
            None,
        );
    }
    const REQUIRE_NAMED_KEYS_NAME: &CStr = c"envelope_pg.require_named_keys";
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            REQUIRE_NAMED_KEYS_NAME,
            c"Whether only keys that a foreign server of the wrapper envelope_pg names may be used: on or off.",
            c"Empty: off. A key that no such server names may then be used by whoever may call the functions.",
            &REQUIRE_NAMED_KEYS,
            GucContext::Suset,
            GucFlags::default(),
            Some(check_require_named_keys),
            Some(assign_require_named_keys),
            None,
        );
    }
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"envelope_pg.audit",
            c"Whether a line of the log says which role used which key in a statement, and for how many values: off, denied or all.",
            c"denied: what a role was refused only. all: each statement that opened or sealed values, too. Never a value.",
            &AUDIT,
            GucContext::Suset,
            GucFlags::default(),
            Some(check_audit),
            Some(assign_audit),
            None,
        );
    }
    if let Some(setting) = ousted::dropped(from_options) {
        ousted::override_with(c"envelope_pg.allowed_keys", c"none");
        ousted::override_with(REQUIRE_NAMED_KEYS_NAME, c"on");
        warn(
            &format!("the connection's options have a value for {setting} that its role may not set"),
            "It took the place of the server's own value, so the session may use no key.".into(),
            "Leave it out of the options and of PGOPTIONS.",
        );
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: a static C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"envelope_pg".as_ptr());
    }
}

fn define_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    flags: GucFlags,
) {
    GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, flags);
}

/// A setting and its lower bound; the upper one is the largest integer, which also is far above any sensible value.
fn define_integer(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    min: i32,
    context: GucContext,
    unit: GucFlags,
) {
    GucRegistry::define_int_guc(name, short, long, setting, min, i32::MAX, context, unit);
}

#[pg_guard]
unsafe extern "C-unwind" fn check_endpoint_url(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    const DETAIL: &CStr =
        c"It is a URL with its scheme and host, such as https://vpce-1a2b.kms.us-east-1.vpce.amazonaws.com.";
    let is_url = |url: &str| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        url.is_empty()
            || rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '['))
    };
    // SAFETY: PostgreSQL calls a check hook with the address of the new value.
    unsafe { check_list(new_value, DETAIL, is_url) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_allowed_keys(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    const DETAIL: &CStr = c"It is a list of key ARNs, alias ARNs, alias/name, key uuids, mrk-... and local:name.";
    // SAFETY: PostgreSQL calls a check hook with the address of the new value.
    unsafe { check_list(new_value, DETAIL, |list| AllowedKeys::parse(list).is_ok()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_require_named_keys(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL calls a check hook with the address of the new value.
    unsafe { check_list(new_value, c"It is on or off.", |text| matches!(text, "" | "on" | "off")) }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_require_named_keys(new_value: *const c_char, _extra: *mut c_void) {
    // SAFETY: PostgreSQL calls an assign hook with the new value: NULL, or a C string.
    let named_keys_required = unsafe { new_value.as_ref().is_some_and(|text| CStr::from_ptr(text) == c"on") };
    USE_CHECKS.set(UseChecks { named_keys_required, ..USE_CHECKS.get() });
}

#[pg_guard]
unsafe extern "C-unwind" fn check_audit(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL calls a check hook with the address of the new value.
    unsafe { check_list(new_value, c"It is off, denied or all.", |text| matches!(text, "off" | "denied" | "all")) }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_audit(new_value: *const c_char, _extra: *mut c_void) {
    // SAFETY: PostgreSQL calls an assign hook with the new value: NULL, or a C string.
    let text = unsafe { new_value.as_ref().map(|text| CStr::from_ptr(text)) };
    let audit = match text.map(CStr::to_bytes) {
        Some(b"all") => Audit::All,
        Some(b"denied") => Audit::Denied,
        _ => Audit::Off,
    };
    USE_CHECKS.set(UseChecks { audit, ..USE_CHECKS.get() });
}

#[pg_guard]
unsafe extern "C-unwind" fn check_regions(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    const DETAIL: &CStr = c"It is a list of AWS regions, such as us-west-2.";
    let are_regions = |list: &str| list.is_empty() || list.split(',').all(|region| is_region(region.trim()));
    // SAFETY: PostgreSQL calls a check hook with the address of the new value.
    unsafe { check_list(new_value, DETAIL, are_regions) }
}

/// # Safety
/// `new_value` is what PostgreSQL called a check hook with.
unsafe fn check_list(new_value: *mut *mut c_char, detail: &'static CStr, is_valid: impl Fn(&str) -> bool) -> bool {
    // SAFETY: it is the address of the new value, which may be NULL and else is a C string.
    let list = unsafe { (*new_value).as_ref().map(|list| CStr::from_ptr(list)) };
    let valid = list.is_none_or(|list| list.to_str().is_ok_and(is_valid));
    if !valid {
        // SAFETY: PostgreSQL reads this text, and never frees it, when it reports that the hook refused the value.
        unsafe { pg_sys::GUC_check_errdetail_string = detail.as_ptr().cast_mut() };
    }
    valid
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_allowed_keys(_new_value: *const c_char, _extra: *mut c_void) {
    ALLOWED_KEYS_GENERATION.set(ALLOWED_KEYS_GENERATION.get().wrapping_add(1));
}
