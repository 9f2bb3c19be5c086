//! What keeps a named key, or a key that somebody has named, from being used.

use envelope_core::keys::named::{OptionError, Use};
use thiserror::Error;

/// See each variant.
#[derive(Debug, Error)]
pub enum NamedKeyError {
    /// 42704. The name is not shown: where arguments are in the wrong order it is the beginning of a plaintext.
    #[error("no such named key")]
    Unknown,
    /// 42501: the name.
    #[error("permission denied for named key \"{0}\"")]
    NoPrivilegeOnName(String),
    /// 42501.
    #[error("permission denied for key {key_id}")]
    NoPrivilege {
        /// The key ARN, or `local:name`.
        key_id: String,
        /// What it was wanted for.
        what: Use,
    },
    /// 42501: the key.
    #[error("key is no named key, and envelope_pg.require_named_keys is on")]
    NotNamed(String),
    /// 22023: the name.
    #[error("encryption context contradicts the one of named key \"{0}\"")]
    Context(String),
    /// HV00D: the server, and what is wrong with its options.
    #[error("named key \"{0}\" is unusable: {1}")]
    Options(String, OptionError),
    /// HV00D: what is wrong with the options of a server that is being made or altered.
    #[error("{0}")]
    Invalid(OptionError),
    /// 0A000: what a wrapper for keys has none of.
    #[error("a named key has no {0}")]
    NotAServer(&'static str),
}

impl NamedKeyError {
    /// SQLSTATE, DETAIL and HINT.
    pub fn parts(&self) -> (&'static str, Option<String>, &'static str) {
        const SERVER: &str = "CREATE SERVER name FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '...') names a key.";
        const GRANT: &str = "GRANT USAGE ON FOREIGN SERVER name TO role lets a role use it.";
        const OPTIONS: &str = "The options are key_id, old_key_ids, encryption_context, operations and cache_ttl; a key is named by key ARN, or local:name.";
        match self {
            Self::Unknown => ("42704", None, SERVER),
            Self::NoPrivilegeOnName(_) => ("42501", None, GRANT),
            Self::NoPrivilege { what, .. } => {
                let operation = match what {
                    Use::Encrypt => "encrypt",
                    Use::Decrypt => "decrypt",
                };
                let detail = format!("The current user has USAGE on no named key of it that is for \"{operation}\".");
                ("42501", Some(detail), GRANT)
            }
            Self::NotNamed(key_id) => ("42501", Some(format!("Key: {key_id}.")), SERVER),
            Self::Context(_) => ("22023", None, "A statement can add to it, and cannot change it."),
            Self::Options(..) | Self::Invalid(_) => ("HV00D", None, OPTIONS),
            Self::NotAServer(_) => ("0A000", None, SERVER),
        }
    }
}
