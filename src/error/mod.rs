//! What becomes which PostgreSQL error. Only this floor says it; nothing secret reaches it. docs/reference/errors.md is made of it.
//!
//! - `value`: values and arguments
//! - `kms`: calls to a key provider
//! - `search`: what has no search token
//! - `trigger`: what an encrypting trigger refuses
//! - `named_key`: who may use which key
//! - `obstacle`: what keeps a table from being scanned

mod kms;
mod named_key;
mod obstacle;
mod search;
mod trigger;
mod value;

use std::borrow::Cow;

use envelope_core::error::{ArgumentError, ValueError};
use envelope_core::request::KmsError;
use envelope_core::search::SearchError;
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
    /// By its kind: see the file `kms`.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// 42501: the key.
    #[error("key is not in envelope_pg.allowed_keys")]
    KeyNotAllowed(String),
    /// 22004: the argument.
    #[error("{0} must not be null")]
    NullArgument(&'static str),
    /// 22000. The header of the value says so.
    #[error("encrypted value is bound to an aad, and none was given")]
    AadMissing,
    /// 22000. The header of the value says so.
    #[error("encrypted value is bound to no aad, and one was given")]
    AadSuperfluous,
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
                let (sqlstate, hint) = value::sqlstate_and_hint(error);
                report(sqlstate, None, hint)
            }
            Self::Argument(error) => report("22023", None, Some(value::argument_hint(error))),
            Self::Kms(error) => {
                let (sqlstate, hint) = kms::sqlstate_and_hint(error);
                report(sqlstate, Some(kms::detail(error)), hint)
            }
            Self::Trigger(error) => {
                let (sqlstate, hint) = error.fault.sqlstate_and_hint();
                let hint = if let Fault::Argument(error) = &error.fault { value::argument_hint(error) } else { hint };
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
            Self::NullArgument(_) => report(
                "22004",
                None,
                Some(
                    "A query that finds no row gives null, too. Only the plaintext or the value may be null: the result is then null.",
                ),
            ),
            Self::AadMissing => report(
                "22000",
                None,
                Some(
                    "Give the aad that it was encrypted with, as the last argument; rotations take aad_column or aad_expression.",
                ),
            ),
            Self::AadSuperfluous => report(
                "22000",
                None,
                Some("Leave the aad out if the column's values have none; else the value was put there without it."),
            ),
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
                let (sqlstate, detail, hint) = search::parts(error);
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
            Self::SharedCounters(error) => report(
                "58000",
                Some(format!("The file for that, in the directory pg_stat_tmp: {error}.")),
                Some("Remove the file, or give it back to the user of the PostgreSQL server; it is made anew."),
            ),
            Self::Broker(reason) => report("58000", Some(format!("Reason: {reason}.")), Some(BROKER_HINT)),
            Self::NoRandomness => report("58000", None, None),
        }
    }
}
