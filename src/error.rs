//! What becomes which PostgreSQL error. Only this file says it; nothing secret reaches it.

mod named_key;
mod obstacle;
mod trigger;

use std::borrow::Cow;

use envelope_core::error::{ArgumentError, ValueError};
use envelope_core::request::{KmsError, KmsErrorKind};
use envelope_core::search::{MOST_BUCKETS, SearchError};
use thiserror::Error;

pub use named_key::NamedKeyError;
pub use obstacle::Obstacle;
pub use trigger::{Fault, TriggerError};

/// Whatever stops a SQL function.
#[derive(Debug, Error)]
pub enum Error {
    /// 22P03, 0A000, 22000, 42804.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// 22023.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// By its fault: see [`Fault`].
    #[error(transparent)]
    Trigger(Box<TriggerError>),
    /// By its variant.
    #[error(transparent)]
    NamedKey(#[from] NamedKeyError),
    /// By its kind: see [`kms_sqlstate`].
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// 42501: the key.
    #[error("key is not in envelope_pg.allowed_keys")]
    KeyNotAllowed(String),
    /// 22004: the argument.
    #[error("{0} must not be null")]
    NullArgument(&'static str),
    /// 22023.
    #[error("the key id is none, and the plaintext is one")]
    SwappedArguments,
    /// 42804.
    #[error("values of this type have no text that is the same in every session")]
    NoStableText,
    /// 22023.
    #[error("the plaintext is an encrypted value")]
    AlreadyEncrypted,
    /// 54000: bytes that were asked for.
    #[error("value is too large")]
    TooLarge(usize),
    /// 53200: bytes that were asked for.
    #[error("out of memory")]
    OutOfMemory(usize),
    /// 22P05: the encoding of the database.
    #[error("decrypted text has a character that the database encoding does not have")]
    Untranslatable(String),
    /// 22021: the encoding that was expected.
    #[error("text is not valid in encoding \"{0}\"")]
    NotInEncoding(String),
    /// 54000: the limit.
    #[error("statement needs more KMS calls than envelope_pg.max_kms_calls_per_statement allows")]
    TooManyKmsCalls(u64),
    /// 22023: the key that wraps now, and the one that cannot.
    #[error("data key cannot be rewrapped under a key of another provider or region")]
    OutOfReach(String, String),
    /// 22023.
    #[error("donor is not of the data key of the value")]
    OtherDataKey,
    /// 55000: why.
    #[error("table cannot be examined: {0}")]
    NotScanned(Obstacle),
    /// 25001.
    #[error("a rotation commits each batch, so it cannot run inside a transaction block")]
    InTransactionBlock,
    /// 22023, 54000: by what is wrong.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// 42704. The name is not shown: where arguments are in the wrong order it is a plaintext.
    #[error("no such index key")]
    NoIndexKey,
    /// 42704: the version.
    #[error("index key has no version {0}")]
    NoIndexKeyVersion(i32),
    /// 55000.
    #[error("index key is retired")]
    RetiredIndexKey,
    /// 0A000.
    #[error("a boolean has no token")]
    NoTokenOfBoolean,
    /// 0A000.
    #[error("a timestamp without time zone has no token")]
    NoTokenOfTimestamp,
    /// 22004.
    #[error("both bounds of a range must be given")]
    NullBound,
    /// 58000.
    #[error("thread for KMS calls is not available")]
    OwnThread(String),
    /// 58000: why.
    #[error("the other processes of the server cannot be told")]
    SharedCounters(std::io::Error),
    /// 58000: why.
    #[error("envelope_pg broker does not answer")]
    Broker(String),
    /// 58000.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
}

impl From<TriggerError> for Error {
    fn from(error: TriggerError) -> Self {
        Self::Trigger(Box::new(error))
    }
}

/// What to do about a broker that does not answer.
pub const BROKER_HINT: &str = "Values are encrypted and decrypted without it. If that lasts, end the process \"envelope_pg broker\": kill -CONT, then kill -TERM; a session in need starts another one, after 30 s at most.";

/// What a client is told.
pub struct Report {
    /// Five characters.
    pub sqlstate: &'static str,
    /// What happened.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<Cow<'static, str>>,
}

impl Error {
    /// SQLSTATE and message, as text.
    pub fn summary(&self) -> String {
        let report = self.report();
        format!("{}: {}", report.sqlstate, report.message)
    }

    /// What a client is told.
    pub fn report(&self) -> Report {
        let report = |sqlstate, detail, hint: Option<&'static str>| Report {
            sqlstate,
            message: self.to_string(),
            detail,
            hint: hint.map(Cow::Borrowed),
        };
        match self {
            Self::Value(error) => {
                let (sqlstate, hint) = value_sqlstate(error);
                report(sqlstate, None, hint)
            }
            Self::Argument(error) => report("22023", None, Some(argument_hint(error))),
            Self::Kms(error) => {
                let (sqlstate, hint) = kms_sqlstate(error);
                report(sqlstate, Some(kms_detail(error)), hint)
            }
            Self::Trigger(error) => {
                let (sqlstate, hint) = error.fault.sqlstate_and_hint();
                let hint = if let Fault::Argument(error) = &error.fault { argument_hint(error) } else { hint };
                report(sqlstate, error.place.clone(), Some(hint))
            }
            Self::NamedKey(error) => {
                let (sqlstate, detail, hint) = error.parts();
                report(sqlstate, detail, Some(hint))
            }
            Self::KeyNotAllowed(key_id) => report(
                "42501",
                Some(format!("Key: {key_id}.")),
                Some("A key that a statement names, and the key ARN behind it, must both be in the list."),
            ),
            Self::NullArgument(_) => {
                report("22004", None, Some("Only the plaintext or the value may be null: the result is then null."))
            }
            Self::SwappedArguments => report(
                "22023",
                None,
                Some(
                    "The plaintext comes first: env_encrypt(plaintext, key_id). To encrypt a key id, give a valid one to encrypt it with.",
                ),
            ),
            Self::NoStableText => report(
                "42804",
                None,
                Some("Cast it to a type that does not depend on the locale or on names of the catalog."),
            ),
            Self::AlreadyEncrypted => report(
                "22023",
                None,
                Some(
                    "env_rewrap and env_reencrypt bring a value under another key. To encrypt it again on purpose, SET \
                     envelope_pg.allow_double_encryption = on.",
                ),
            ),
            Self::TooLarge(bytes) => report(
                "54000",
                Some(format!("The result would have {bytes} bytes; PostgreSQL's limit is 1 GB.")),
                Some("Split the value over several rows."),
            ),
            Self::OutOfMemory(bytes) => report("53200", Some(format!("Failed on request of size {bytes}.")), None),
            Self::Untranslatable(encoding) => report(
                "22P05",
                Some(format!("The database encoding is {encoding}; text is encrypted as UTF-8.")),
                Some("Decrypt it in a database with encoding UTF8."),
            ),
            Self::NotInEncoding(_) => report("22021", None, None),
            Self::TooManyKmsCalls(limit) => report(
                "54000",
                Some(format!("The limit is {limit}.")),
                Some(
                    "Values under many data keys need a call for each; raise the setting for this statement if that is right.",
                ),
            ),
            Self::OutOfReach(from, to) => report(
                "22023",
                Some(format!("From key {from} to key {to}.")),
                Some(
                    "Use env_reencrypt, or env_rotate with method 'reencrypt': it opens the value and seals it again.",
                ),
            ),
            Self::OtherDataKey => report(
                "22023",
                None,
                Some("Values of one data key have the same env_dek_id and env_encryption_context."),
            ),
            Self::NotScanned(_) => report("55000", None, None),
            Self::Search(error) => {
                let (sqlstate, detail, hint) = search_report(error);
                report(sqlstate, detail, Some(hint))
            }
            Self::NoIndexKey => report(
                "42704",
                None,
                Some(
                    "env_create_index_key(name, key_id) makes one. The value is the first argument, the name of the index key comes after it.",
                ),
            ),
            Self::NoIndexKeyVersion(_) => report(
                "42704",
                None,
                Some("The view env_index_key shows the versions; env_rotate_index_key(name) makes another one."),
            ),
            Self::RetiredIndexKey => {
                report("55000", None, Some("Use a version that is not; env_rotate_index_key(name) makes a new one."))
            }
            Self::NoTokenOfBoolean => report(
                "0A000",
                Some("Two values cannot be hidden: the more frequent token would be the more frequent value.".into()),
                Some("Filter by decrypting, or store it in the clear if it is no secret."),
            ),
            Self::NoTokenOfTimestamp => report(
                "0A000",
                Some("As a timestamptz it would be another one in each time zone.".into()),
                Some("Say which time it is: value AT TIME ZONE 'UTC'."),
            ),
            Self::NullBound => report(
                "22004",
                None,
                Some(
                    "A range without an end has no list of buckets: give the least or the greatest value that there can be.",
                ),
            ),
            Self::InTransactionBlock => report(
                "25001",
                None,
                Some("Send CALL as a statement of its own, outside of BEGIN, and with autocommit on."),
            ),
            Self::OwnThread(reason) => report("58000", Some(format!("{reason}.")), Some("Try again.")),
            Self::SharedCounters(error) => {
                report("58000", Some(format!("The file for that, in the directory pg_stat_tmp: {error}.")), None)
            }
            Self::Broker(reason) => report("58000", Some(format!("Reason: {reason}.")), Some(BROKER_HINT)),
            Self::NoRandomness => report("58000", None, None),
        }
    }
}

fn value_sqlstate(error: &ValueError) -> (&'static str, Option<&'static str>) {
    match error {
        ValueError::NotAnEnvelope | ValueError::Truncated | ValueError::Malformed(_) => {
            ("22P03", Some("env_is_envelope(value) tells encrypted values from others."))
        }
        ValueError::UnsupportedVersion(_)
        | ValueError::UnsupportedSuite(_)
        | ValueError::UnsupportedReference
        | ValueError::UnsupportedProvider(_) => ("0A000", Some("A newer release of envelope_pg may have written it.")),
        ValueError::AuthenticationFailed => {
            ("22000", Some("It was changed, or moved to another row, or the aad is not the one it was encrypted with."))
        }
        ValueError::WrongType { .. } => {
            ("42804", Some("Use env_decrypt for text, env_decrypt_bytea for bytea and env_decrypt_jsonb for jsonb."))
        }
    }
}

fn argument_hint(error: &ArgumentError) -> &'static str {
    match error {
        ArgumentError::KeyId(_) => {
            "Use a KMS key ARN, alias ARN, alias/name, key uuid or mrk-... of AWS KMS, or local:name of the local provider."
        }
        ArgumentError::LocalKeyName => "A name has 1 to 64 of the characters A-Z a-z 0-9 _ . -",
        ArgumentError::EncryptionContext(_) => {
            "An encryption context is a flat JSON object of strings, such as {\"table\": \"customers\"}."
        }
        ArgumentError::AllowedKeys(_) => "Separate key ids with commas.",
        ArgumentError::NotAKeyArn(_) => {
            "Write the key ARN, or local:name, as env_key_id(value) shows it; only KMS can tell which key an alias stands for."
        }
        ArgumentError::ColumnRule(_) => {
            "Write a JSON object such as {\"source\": \"ssn\", \"target\": \"ssn_enc\", \"key_id\": \"alias/app\", \"aad\": \"person.ssn:{id}\"}; \
             \"aad\" and \"encryption_context\" may be left out."
        }
    }
}

/// SQLSTATE, DETAIL and HINT of what has no token.
fn search_report(error: &SearchError) -> (&'static str, Option<String>, &'static str) {
    let invalid = "22023";
    match error {
        SearchError::NotANumber => (invalid, None, "Use what PostgreSQL writes for a numeric."),
        SearchError::NotFinite => (
            invalid,
            None,
            "Infinity can be found by env_blind_index; leave it out of the range with a WHERE or a CASE.",
        ),
        SearchError::NeedleTooShort(shortest) => (
            invalid,
            Some(format!("The shortest indexed prefix has {shortest} characters.")),
            "It could be in any row. Ask for more characters, or filter by decrypting.",
        ),
        SearchError::PrefixLengths => (
            invalid,
            None,
            "Give ascending lengths of 3 to 8 characters, such as '{3,4,5}', the same for values and for searches.",
        ),
        SearchError::Bits(bits) => (
            invalid,
            Some(format!("{bits} were given.")),
            "A short token has 1 to 32 bits; env_index_plan says how many.",
        ),
        SearchError::Width => (invalid, None, "Give a width above zero; an interval without months or years."),
        SearchError::TooFar => ("22003", None, "Choose wider buckets, or another origin."),
        SearchError::TooManyBuckets { needed, limit } => (
            "54000",
            Some(format!("It has {needed}, and max_buckets is {limit}.")),
            "Choose wider buckets or a smaller range, or raise max_buckets.",
        ),
        SearchError::BucketLimit(limit) => (
            invalid,
            Some(format!("The limit is {limit}; it must be 1 to {MOST_BUCKETS}.")),
            "Choose wider buckets, so that a range has fewer.",
        ),
        SearchError::TooLong => ("54000", None, "PostgreSQL has no values above 1 GB."),
        SearchError::Step => (invalid, None, "The steps are lower, nfkc, trim, digits and email."),
        SearchError::PlanOfNothing => {
            (invalid, None, "Count them: SELECT count(DISTINCT column), count(column) FROM table.")
        }
    }
}

/// SQLSTATE and HINT of a failed call to a key provider.
fn kms_sqlstate(error: &KmsError) -> (&'static str, Option<&'static str>) {
    match &error.kind {
        KmsErrorKind::Unreachable(reason) if reason.contains("certificate") || reason.contains("CA bundle") => (
            "58000",
            Some(
                "Check which certificates the PostgreSQL server trusts: AWS_CA_BUNDLE, ca_bundle of the profile, SSL_CERT_FILE, or the system's.",
            ),
        ),
        KmsErrorKind::Unreachable(_) | KmsErrorKind::TimedOut => (
            "58000",
            Some(
                "Check the host and the region in DETAIL, the network, envelope_pg.kms_endpoint_url and envelope_pg.kms_timeout; then try again.",
            ),
        ),
        KmsErrorKind::KeyUnavailable(_) => (
            "58000",
            Some(
                "Check the key's custom key store in AWS KMS: its connection state, the CloudHSM cluster or the external key store proxy; then try again.",
            ),
        ),
        KmsErrorKind::NoCredentials(reason) => ("58000", Some(credentials_hint(error, reason))),
        KmsErrorKind::Throttled => ("53400", Some("Try again later, or have the KMS request quota raised.")),
        KmsErrorKind::HeldBack => (
            "53400",
            Some(
                "Raise envelope_pg.kms_max_calls_per_second, if the quota of the AWS account allows it, or try again later.",
            ),
        ),
        KmsErrorKind::AccessDenied => {
            ("42501", Some("Allow it in the key policy or in the IAM policy of the PostgreSQL server."))
        }
        KmsErrorKind::KeyUnusable => ("55000", Some("Enable the key, or cancel its deletion, in AWS KMS.")),
        KmsErrorKind::NotFound if error.key_id.starts_with("local:") => {
            ("42704", Some("env_local_create_key(name) makes a local key."))
        }
        KmsErrorKind::NotFound => ("42704", Some("Check the key id, the account and the region.")),
        KmsErrorKind::WrappedKeyRejected => {
            ("22000", Some("It was changed, or the value was put together from parts of others."))
        }
        KmsErrorKind::InvalidRequest(_) => ("22023", Some(invalid_request_hint(error))),
        KmsErrorKind::UnexpectedAnswer(_) => (
            "58000",
            Some(
                "Treat it as an attack until shown otherwise: who answers at envelope_pg.kms_endpoint_url, or at the host in DETAIL?",
            ),
        ),
        KmsErrorKind::NoRegion => ("55000", Some("Set envelope_pg.kms_region, or name the key by ARN.")),
        KmsErrorKind::LocalProviderOff => (
            "55000",
            Some("Set envelope_pg.local_keyring to the path of a key file; production keys belong in AWS KMS."),
        ),
        KmsErrorKind::Keyring(_) => {
            ("F0000", Some("It must be a file of the server's user with mode 0600, made by env_local_create_key."))
        }
        // The session makes an error of its own of it.
        KmsErrorKind::NoCallLeft => ("54000", None),
        KmsErrorKind::LocalKeyExists => ("42710", Some("env_local_rotate_key(name) gives a key a new version.")),
    }
}

fn credentials_hint(error: &KmsError, reason: &str) -> &'static str {
    match error.metadata.code {
        _ if reason.contains("clock") => "Set the clock of the PostgreSQL server, and see why it was wrong.",
        Some(_) => {
            "Renew the credentials of the PostgreSQL server at their source; env_kms_reconnect() has all processes read them anew."
        }
        None => {
            "Give the PostgreSQL server AWS credentials: environment, profile, web identity, container or instance; DETAIL has what the source of these says."
        }
    }
}

fn invalid_request_hint(error: &KmsError) -> &'static str {
    match error.metadata.code.as_deref() {
        Some("InvalidKeyUsageException" | "UnsupportedOperationException") => {
            "The key must be a symmetric encryption key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT)."
        }
        Some("InvalidArnException" | "InvalidAliasNameException") => {
            "Check the key id: KMS takes it for no name of a key."
        }
        Some("ValidationException" | "ValidationError") => {
            "Check the key id, and the size of the encryption context: KMS takes 8 KiB."
        }
        None => "Use another key, or env_reencrypt.",
        Some(_) => {
            "Look the KMS error code up in the AWS KMS API Reference; is it AWS KMS that answers at the host in DETAIL?"
        }
    }
}

/// The facts: what the service said, about which key, how long it took.
fn kms_detail(error: &KmsError) -> String {
    let reason = match &error.kind {
        KmsErrorKind::Unreachable(reason)
        | KmsErrorKind::KeyUnavailable(reason)
        | KmsErrorKind::NoCredentials(reason)
        | KmsErrorKind::InvalidRequest(reason)
        | KmsErrorKind::Keyring(reason) => Some(reason.as_str()),
        KmsErrorKind::UnexpectedAnswer(reason) => Some(reason.as_ref()),
        _ => error.metadata.message.as_deref(),
    };
    let mut facts = vec![format!("{} with key {}", error.operation, error.key_id)];
    facts.extend(reason.map(|reason| reason.trim_end_matches('.').to_owned()));
    facts.extend(error.metadata.code.as_ref().map(|code| format!("KMS error code {code}")));
    facts.extend(error.metadata.request_id.as_ref().map(|id| format!("request id {id}")));
    facts.extend(error.endpoint.host.as_ref().map(|host| format!("host {host}")));
    facts.extend(error.endpoint.region.as_ref().map(|region| format!("region {region}")));
    facts.extend(match error.attempts {
        _ if error.breaker_was_open => Some("not tried again so soon (circuit breaker)".to_owned()),
        Some(1) => Some("1 attempt".to_owned()),
        attempts => attempts.map(|attempts| format!("{attempts} attempts")),
    });
    facts.extend(error.elapsed.map(|elapsed| format!("after {} ms", elapsed.as_millis())));
    facts.join("; ") + "."
}
