//! An example of each error of the library. Where a variant is new, this file does not compile until it has a name here, and the
//! test fails until it has an example.

use envelope_core::error::{ArgumentError, ValueError};
use envelope_core::format::ValueType;
use envelope_core::keys::named::{OptionError, Use};
use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use envelope_core::search::SearchError;

use super::Entry;
use super::error::{Error, Fault, NamedKeyError, Obstacle, TriggerError};

macro_rules! names {
    ($($function:ident($type:ident) { $($pattern:pat => $name:literal,)* })*) => {
        /// All names.
        pub const ALL: &[&str] = &[$($($name,)*)*];
        $(fn $function(error: &$type) -> &'static str {
            match error {
                $($pattern => $name,)*
            }
        })*
    };
}

names! {
    name_of_value(ValueError) {
        ValueError::NotAnEnvelope => "not-an-envelope",
        ValueError::Truncated => "truncated",
        ValueError::Malformed(_) => "malformed",
        ValueError::UnsupportedVersion(_) => "unsupported-version",
        ValueError::UnsupportedSuite(_) => "unsupported-suite",
        ValueError::UnsupportedReference => "unsupported-reference",
        ValueError::UnsupportedProvider(_) => "unsupported-provider",
        ValueError::AuthenticationFailed => "authentication-failed",
        ValueError::WrongType { .. } => "wrong-type",
    }
    name_of_argument(ArgumentError) {
        ArgumentError::KeyId(_) => "key-id",
        ArgumentError::LocalKeyName => "local-key-name",
        ArgumentError::EncryptionContext(_) => "encryption-context",
        ArgumentError::AllowedKeys(_) => "allowed-keys",
        ArgumentError::NotAKeyArn(_) => "not-a-key-arn",
        ArgumentError::ColumnRule(_) => "column-rule",
    }
    name_of_fault(Fault) {
        Fault::NotATrigger => "trigger-not-a-trigger",
        Fault::WrongKind(_) => "trigger-wrong-kind",
        Fault::NoArguments => "trigger-no-arguments",
        Fault::Argument(_) => "trigger-argument",
        Fault::NoColumn(_) => "trigger-no-column",
        Fault::SourceType(..) => "trigger-source-type",
        Fault::TargetType(..) => "trigger-target-type",
        Fault::AadType(..) => "trigger-aad-type",
        Fault::Generated(_) => "trigger-generated",
        Fault::SourceNotNull(_) => "trigger-source-not-null",
        Fault::UsedTwice(_) => "trigger-used-twice",
        Fault::TokenType(..) => "trigger-token-type",
        Fault::TokenOfType(..) => "trigger-token-of-type",
        Fault::NotAToken(_) => "trigger-not-a-token",
        Fault::NoToken(_) => "trigger-no-token",
        Fault::BothSet(..) => "trigger-both-set",
        Fault::SourceSetToNull(..) => "trigger-source-set-to-null",
        Fault::NotEncrypted(_) => "trigger-not-encrypted",
        Fault::AadChanged(_) => "trigger-aad-changed",
        Fault::OfAnotherRow(_) => "trigger-of-another-row",
        Fault::Edited(_) => "trigger-edited",
        Fault::DoesNotOpen(_) => "trigger-does-not-open",
        Fault::ContainsValue(_) => "trigger-contains-value",
        Fault::SourceCompared(..) => "trigger-source-compared",
        Fault::NullAad(_) => "trigger-null-aad",
    }
    name_of_named_key(NamedKeyError) {
        NamedKeyError::Unknown => "named-key-unknown",
        NamedKeyError::NoPrivilegeOnName(_) => "named-key-no-privilege",
        NamedKeyError::NoPrivilege { .. } => "key-no-privilege",
        NamedKeyError::NotNamed(_) => "key-not-named",
        NamedKeyError::Context(_) => "named-key-context",
        NamedKeyError::Options(..) => "named-key-unusable",
        NamedKeyError::Invalid(_) => "named-key-option",
        NamedKeyError::NotAServer(_) => "named-key-not-a-server",
    }
    name_of_kms(KmsErrorKind) {
        KmsErrorKind::Unreachable(_) => "kms-unreachable",
        KmsErrorKind::TimedOut => "kms-timed-out",
        KmsErrorKind::NoCredentials(_) => "kms-no-credentials",
        KmsErrorKind::Throttled => "kms-throttled",
        KmsErrorKind::HeldBack => "kms-held-back",
        KmsErrorKind::AccessDenied => "kms-access-denied",
        KmsErrorKind::KeyUnavailable(_) => "kms-key-unavailable",
        KmsErrorKind::KeyUnusable => "kms-key-unusable",
        KmsErrorKind::NotFound => "kms-not-found",
        KmsErrorKind::WrappedKeyRejected => "kms-wrapped-key-rejected",
        KmsErrorKind::InvalidRequest(_) => "kms-invalid-request",
        KmsErrorKind::UnexpectedAnswer(_) => "kms-unexpected-answer",
        KmsErrorKind::NoRegion => "kms-no-region",
        KmsErrorKind::LocalProviderOff => "local-provider-off",
        KmsErrorKind::Keyring(_) => "local-keyring",
        KmsErrorKind::NoCallLeft => "kms-no-call-left",
        KmsErrorKind::LocalKeyExists => "local-key-exists",
    }
    name_of_search(SearchError) {
        SearchError::NotANumber => "search-not-a-number",
        SearchError::NotFinite => "search-not-finite",
        SearchError::NeedleTooShort(_) => "search-needle-too-short",
        SearchError::PrefixLengths => "search-prefix-lengths",
        SearchError::Bits(_) => "search-bits",
        SearchError::Width => "search-width",
        SearchError::TooFar => "search-too-far",
        SearchError::TooManyBuckets { .. } => "search-too-many-buckets",
        SearchError::BucketLimit(_) => "search-bucket-limit",
        SearchError::TooLong => "search-too-long",
        SearchError::Step => "search-step",
        SearchError::PlanOfNothing => "search-plan-of-nothing",
    }
    name_of_other(Error) {
        Error::Value(_) | Error::Argument(_) | Error::Trigger(_) | Error::NamedKey(_) | Error::Kms(_) | Error::Search(_) => "",
        Error::KeyNotAllowed(_) => "key-not-allowed",
        Error::NullArgument(_) => "null-argument",
        Error::AadMissing => "aad-missing",
        Error::AadSuperfluous => "aad-superfluous",
        Error::SwappedArguments => "swapped-arguments",
        Error::NoStableText => "no-stable-text",
        Error::AlreadyEncrypted => "already-encrypted",
        Error::TooLarge(_) => "too-large",
        Error::OutOfMemory(_) => "out-of-memory",
        Error::Untranslatable(_) => "untranslatable",
        Error::NotInEncoding(_) => "not-in-encoding",
        Error::TooManyKmsCalls(_) => "too-many-kms-calls",
        Error::OutOfReach(..) => "out-of-reach",
        Error::OtherDataKey => "other-data-key",
        Error::NotScanned(_) => "not-scanned",
        Error::InTransactionBlock => "in-transaction-block",
        Error::NoIndexKey => "no-index-key",
        Error::NoIndexKeyVersion(_) => "no-index-key-version",
        Error::RetiredIndexKey => "retired-index-key",
        Error::NoTokenOfBoolean => "no-token-of-boolean",
        Error::NoTokenOfTimestamp => "no-token-of-timestamp",
        Error::NullBound => "null-bound",
        Error::OwnThread(_) => "own-thread",
        Error::SharedCounters(_) => "shared-counters",
        Error::Broker(_) => "broker",
        Error::NoRandomness => "no-randomness",
    }
}

/// An example of each.
pub fn entries() -> Vec<Entry> {
    let kms = KMS.iter().map(|(kind, key_id)| Error::Kms(KmsError::new(kind(), Operation::Decrypt, key_id)));
    let mut entries: Vec<Entry> = Vec::new();
    for error in values()
        .into_iter()
        .chain(arguments())
        .chain(faults())
        .chain(named_keys())
        .chain(kms)
        .chain(searches())
        .chain(others())
    {
        let name = match &error {
            Error::Value(error) => name_of_value(error),
            Error::Argument(error) => name_of_argument(error),
            Error::Trigger(error) => name_of_fault(&error.fault),
            Error::NamedKey(error) => name_of_named_key(error),
            Error::Kms(error) => name_of_kms(&error.kind),
            Error::Search(error) => name_of_search(error),
            other => name_of_other(other),
        };
        let report = error.report();
        // One name, several cases.
        let before =
            entries.iter().filter(|entry| entry.id == name || entry.id.starts_with(&format!("{name}-"))).count();
        let case = if before == 0 { String::new() } else { format!("-{}", before + 1) };
        entries.push(Entry {
            id: format!("{name}{case}"),
            sqlstate: report.sqlstate.to_owned(),
            message: report.message,
            detail: report.detail,
            hint: report.hint.map(Into::into),
            advice: ADVICE.iter().find(|(of, _)| *of == name).map(|(_, advice)| *advice),
            file: None,
        });
    }
    entries
}

fn values() -> Vec<Error> {
    [
        ValueError::NotAnEnvelope,
        ValueError::Truncated,
        ValueError::Malformed("FIELD"),
        ValueError::UnsupportedVersion(2),
        ValueError::UnsupportedSuite(2),
        ValueError::UnsupportedReference,
        ValueError::UnsupportedProvider(9),
        ValueError::AuthenticationFailed,
        ValueError::WrongType { found: ValueType::Bytea, wanted: ValueType::Text },
    ]
    .map(Error::Value)
    .into()
}

fn arguments() -> Vec<Error> {
    [
        ArgumentError::KeyId("WHAT IS WRONG"),
        ArgumentError::LocalKeyName,
        ArgumentError::EncryptionContext("WHAT IS WRONG"),
        ArgumentError::AllowedKeys(2),
        ArgumentError::NotAKeyArn("alias/app".into()),
        ArgumentError::ColumnRule("WHAT IS WRONG".into()),
    ]
    .map(Error::Argument)
    .into()
}

fn faults() -> Vec<Error> {
    let column = || "COLUMN".to_owned();
    let kind = || "TYPE".to_owned();
    [
        Fault::NotATrigger,
        Fault::WrongKind("fires AFTER"),
        Fault::NoArguments,
        Fault::Argument(ArgumentError::ColumnRule("WHAT IS WRONG".into())),
        Fault::NoColumn(column()),
        Fault::SourceType(column(), kind()),
        Fault::TargetType(column(), kind()),
        Fault::AadType(column(), kind()),
        Fault::Generated(column()),
        Fault::SourceNotNull(column()),
        Fault::UsedTwice(column()),
        Fault::TokenType(column(), kind()),
        Fault::TokenOfType(column(), kind()),
        Fault::NotAToken(column()),
        Fault::NoToken(column()),
        Fault::BothSet("SOURCE".into(), "TARGET".into()),
        Fault::SourceSetToNull("SOURCE".into(), "TARGET".into()),
        Fault::NotEncrypted(column()),
        Fault::AadChanged(column()),
        Fault::OfAnotherRow(column()),
        Fault::Edited(column()),
        Fault::DoesNotOpen(column()),
        Fault::ContainsValue(column()),
        Fault::SourceCompared(column(), "INDEX".into()),
        Fault::NullAad(column()),
    ]
    .map(|fault| TriggerError { fault, place: Some("Trigger TRIGGER of table TABLE.".into()) }.into())
    .into()
}

fn named_keys() -> Vec<Error> {
    let name = || "NAME".to_owned();
    [
        NamedKeyError::Unknown,
        NamedKeyError::NoPrivilegeOnName(name()),
        NamedKeyError::NoPrivilege { key_id: "KEY".into(), what: Use::Decrypt },
        NamedKeyError::NotNamed("KEY".into()),
        NamedKeyError::Context(name()),
        NamedKeyError::Options(name(), OptionError::NoKey),
        NamedKeyError::Invalid(OptionError::Unknown("OPTION".into())),
        NamedKeyError::Invalid(OptionError::NoKey),
        NamedKeyError::Invalid(OptionError::NotAKey("old_key_ids")),
        NamedKeyError::Invalid(OptionError::EncryptionContext("WHAT IS WRONG".into())),
        NamedKeyError::Invalid(OptionError::Operations),
        NamedKeyError::Invalid(OptionError::CacheTtl),
        NamedKeyError::NotAServer("user mappings"),
    ]
    .map(Error::NamedKey)
    .into()
}

/// What went wrong, and with which key.
type KmsSample = (fn() -> KmsErrorKind, &'static str);

const KMS: &[KmsSample] = &[
    (|| KmsErrorKind::Unreachable("REASON".into()), "KEY"),
    (|| KmsErrorKind::Unreachable("invalid peer certificate: REASON".into()), "KEY"),
    (|| KmsErrorKind::TimedOut, "KEY"),
    (|| KmsErrorKind::NoCredentials("REASON".into()), "KEY"),
    (|| KmsErrorKind::NoCredentials("the clock of this server is wrong".into()), "KEY"),
    (|| KmsErrorKind::Throttled, "KEY"),
    (|| KmsErrorKind::HeldBack, "KEY"),
    (|| KmsErrorKind::AccessDenied, "KEY"),
    (|| KmsErrorKind::KeyUnavailable("REASON".into()), "KEY"),
    (|| KmsErrorKind::KeyUnusable, "KEY"),
    (|| KmsErrorKind::NotFound, "KEY"),
    (|| KmsErrorKind::NotFound, "local:NAME"),
    (|| KmsErrorKind::WrappedKeyRejected, "KEY"),
    (|| KmsErrorKind::InvalidRequest("REASON".into()), "KEY"),
    (|| KmsErrorKind::UnexpectedAnswer("REASON".into()), "KEY"),
    (|| KmsErrorKind::NoRegion, "alias/NAME"),
    (|| KmsErrorKind::LocalProviderOff, "local:NAME"),
    (|| KmsErrorKind::Keyring("\"PATH\" can be read or written by others (mode 0644)".into()), "local:NAME"),
    (|| KmsErrorKind::Keyring("\"PATH\" does not exist".into()), "local:NAME"),
    (|| KmsErrorKind::Keyring("the directory of \"PATH\" does not exist".into()), "local:NAME"),
    (|| KmsErrorKind::NoCallLeft, "KEY"),
    (|| KmsErrorKind::LocalKeyExists, "local:NAME"),
];

fn searches() -> Vec<Error> {
    [
        SearchError::NotANumber,
        SearchError::NotFinite,
        SearchError::NeedleTooShort(3),
        SearchError::PrefixLengths,
        SearchError::Bits(33),
        SearchError::Width,
        SearchError::TooFar,
        SearchError::TooManyBuckets { needed: 2000, limit: 1000 },
        SearchError::BucketLimit(0),
        SearchError::TooLong,
        SearchError::Step,
        SearchError::PlanOfNothing,
    ]
    .map(Error::Search)
    .into()
}

fn others() -> Vec<Error> {
    let mut others = vec![
        Error::KeyNotAllowed("KEY".into()),
        Error::NullArgument("ARGUMENT"),
        Error::AadMissing,
        Error::AadSuperfluous,
        Error::SwappedArguments,
        Error::NoStableText,
        Error::AlreadyEncrypted,
        Error::TooLarge(1 << 30),
        Error::OutOfMemory(1 << 20),
        Error::Untranslatable("LATIN1".into()),
        Error::NotInEncoding("UTF8".into()),
        Error::TooManyKmsCalls(10),
        Error::OutOfReach("KEY".into(), "OTHER KEY".into()),
        Error::OtherDataKey,
        Error::InTransactionBlock,
        Error::NoIndexKey,
        Error::NoIndexKeyVersion(2),
        Error::RetiredIndexKey,
        Error::NoTokenOfBoolean,
        Error::NoTokenOfTimestamp,
        Error::NullBound,
        Error::OwnThread("REASON".into()),
        Error::SharedCounters(std::io::Error::other("REASON")),
        Error::Broker("REASON".into()),
        Error::NoRandomness,
    ];
    let obstacles = [Obstacle::Gone, Obstacle::NotATable, Obstacle::NoSelect, Obstacle::RowSecurity, Obstacle::Column];
    others.extend(obstacles.map(Error::NotScanned));
    others
}

/// What else to do, by name.
const ADVICE: &[(&str, &str)] = &[
    (
        "authentication-failed",
        "The one error of everything cryptographic: it tells nobody what was almost right. Compare the aad with the one of the \
         statement that wrote the value, letter by letter; `env_inspect(value)` shows what is not encrypted. A value that was \
         copied to another row does not open there, by design. If neither is it, restore the value from a backup.",
    ),
    (
        "not-an-envelope",
        "A column that holds plaintext, or text of a value (hexadecimal with `\\x`) in a text column. `env_check()` lists columns \
         with both. A row of `env_inventory()` with the content `no envelope` says how many there are.",
    ),
    ("truncated", "A column, a driver or a file that cuts long values. The value cannot be mended: restore it."),
    ("wrong-type", "`env_inspect(value)` shows the type."),
    ("out-of-memory", "The value, and what it opens to, must fit into the memory of the backend at the same time."),
    (
        "not-in-encoding",
        "The text was made by something that did not check it, such as a function in C. Write it anew.",
    ),
    (
        "not-scanned",
        "`env_inventory_columns()` says it of all columns. Ask as a role that may read the whole table, or as its owner.",
    ),
    ("no-randomness", "The kernel has no random numbers: an old kernel at boot, or a sandbox that refuses getrandom."),
    (
        "kms-no-call-left",
        "Only seen between processes: a client is told that the statement needs more KMS calls than allowed.",
    ),
    ("kms-access-denied", "IAM's answer is final: cached data keys of the key are dropped at once."),
    (
        "key-not-allowed",
        "`SHOW envelope_pg.allowed_keys` in that session; a list of the role (`ALTER ROLE ... SET`) takes the place of the \
         server's. `none` is what a session has whose connection tried to set it.",
    ),
];
