//! Why an encrypting trigger refuses its definition or a row. The texts have names of columns, and never values.

use envelope_core::error::ArgumentError;
use thiserror::Error;

/// What is wrong, and where.
#[derive(Debug, Error)]
#[error("{fault}")]
pub struct TriggerError {
    /// What is wrong.
    pub fault: Fault,
    /// The trigger and its table, as a sentence.
    pub place: Option<String>,
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// 39P01.
    #[error("env_encrypt_trigger can only be called as a trigger")]
    NotATrigger,
    /// 39P01: how it is not.
    #[error("env_encrypt_trigger must be called BEFORE INSERT OR UPDATE FOR EACH ROW: this trigger {0}")]
    WrongKind(&'static str),
    /// 22023.
    #[error("env_encrypt_trigger has no argument")]
    NoArguments,
    /// 22023.
    #[error(transparent)]
    Argument(ArgumentError),
    /// 42703: the column.
    #[error("column \"{0}\" does not exist")]
    NoColumn(String),
    /// 42804: the column and its type.
    #[error("column \"{0}\" of type {1} cannot be encrypted")]
    SourceType(String, String),
    /// 42804: the column and its type.
    #[error("column \"{0}\" of type {1} cannot hold an encrypted value")]
    TargetType(String, String),
    /// 42804: the column and its type.
    #[error("column \"{0}\" of type {1} cannot be part of an aad")]
    AadType(String, String),
    /// 42P17: the column.
    #[error("column \"{0}\" is a generated column")]
    Generated(String),
    /// 42P17: the column.
    #[error("column \"{0}\" is NOT NULL, and the trigger sets it to null")]
    SourceNotNull(String),
    /// 42P17: the column.
    #[error("column \"{0}\" is used twice")]
    UsedTwice(String),
    /// 42804: the column and its type.
    #[error("column \"{0}\" of type {1} cannot hold the tokens of its rule")]
    TokenType(String, String),
    /// 42804: the column and the type of the source.
    #[error("column \"{0}\" cannot have such tokens of a {1}")]
    TokenOfType(String, String),
    /// 22P03: the column.
    #[error("column \"{0}\" is set to what is not a token of the value")]
    NotAToken(String),
    /// 22023: the column.
    #[error("the value has no token for column \"{0}\"")]
    NoToken(String),
    /// 23000: source and target.
    #[error("columns \"{0}\" and \"{1}\" are both set")]
    BothSet(String, String),
    /// 23000: source and target.
    #[error("column \"{0}\" is set to null, which does not clear column \"{1}\"")]
    SourceSetToNull(String, String),
    /// 22P03: the target.
    #[error("column \"{0}\" is set to a value that is not encrypted")]
    NotEncrypted(String),
    /// 23000: the target.
    #[error("the value of column \"{0}\" would no longer open: the columns of its aad change")]
    AadChanged(String),
    /// 23000: the target.
    #[error("column \"{0}\" is set to a value that was encrypted for another row")]
    OfAnotherRow(String),
    /// 23000: the column.
    #[error("column \"{0}\" is set to an encrypted value that was edited as bytes, and would not open")]
    Edited(String),
    /// 23000: the target.
    #[error("column \"{0}\" is set to an encrypted value that does not open in this row")]
    DoesNotOpen(String),
    /// 23000: the column.
    #[error("column \"{0}\" is set to a plaintext that contains an encrypted value")]
    ContainsValue(String),
    /// 42P17: the column and the constraint or index.
    #[error("column \"{0}\" is compared by \"{1}\", and the trigger leaves no plaintext in it")]
    SourceCompared(String, String),
    /// 22004: the column.
    #[error("column \"{0}\" is part of an aad and must not be null")]
    NullAad(String),
}

impl Fault {
    /// SQLSTATE and HINT; the HINT of an argument is that of its own error.
    pub fn sqlstate_and_hint(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotATrigger | Self::WrongKind(_) => (
                "39P01",
                "CREATE TRIGGER name BEFORE INSERT OR UPDATE ON table FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(...)",
            ),
            Self::NoArguments | Self::Argument(_) => {
                ("22023", "Give a JSON object for each column that the trigger encrypts.")
            }
            Self::NoColumn(_) => (
                "42703",
                "The trigger finds columns by name, letter by letter. If one was renamed, create the trigger again.",
            ),
            Self::SourceType(..) => (
                "42804",
                "A source is of any type whose text does not depend on the locale or on names of the catalog; in place it is bytea.",
            ),
            Self::TargetType(..) => ("42804", "A target is bytea, or a domain over it."),
            Self::AadType(..) => (
                "42804",
                "It takes columns whose text does not depend on settings: smallint, integer, bigint, numeric, uuid, text, varchar.",
            ),
            Self::Generated(_) => ("42P17", "PostgreSQL computes generated columns after this trigger."),
            Self::SourceNotNull(_) => (
                "42P17",
                "Drop the constraint of the source; the target can have it, and the source CHECK (source IS NULL).",
            ),
            Self::UsedTwice(_) => {
                ("42P17", "A source or target belongs to one argument only, and is not part of an aad.")
            }
            Self::BothSet(..) => (
                "23000",
                "Set the source to have it encrypted, or the target to a value that is encrypted already, and the other to null.",
            ),
            Self::SourceSetToNull(..) => (
                "23000",
                "To clear the value set the target to null. EXCLUDED has it in the target, encrypted already. To leave it as it \
                 is, take the source out of SET, or set the target to itself.",
            ),
            Self::TokenType(..) => {
                ("42804", "Tokens of equality and of buckets are a bytea, those of prefixes a bytea[].")
            }
            Self::TokenOfType(..) => (
                "42804",
                "A text can have all kinds of tokens, a bytea those of equality, a jsonb those with a \"type\".",
            ),
            Self::NotAToken(_) => ("22P03", "Leave the column out: the trigger fills it."),
            Self::NoToken(_) => (
                "22023",
                "With a \"type\" in its rule it must be a number, a date such as 2026-11-26, a time with its offset from UTC, or a uuid.",
            ),
            Self::NotEncrypted(_) => {
                ("22P03", "Write plaintext to the source of the trigger; the target takes what env_encrypt returned.")
            }
            Self::AadChanged(_) => {
                ("23000", "Set the plaintext in the same UPDATE, to have it encrypted for the changed row.")
            }
            Self::OfAnotherRow(_) => (
                "23000",
                "EXCLUDED was encrypted for the row that was not inserted. The aad needs columns that are the same in both rows.",
            ),
            Self::Edited(_) => (
                "23000",
                "Decrypt it, change the plaintext and write that, as in SET column = env_decrypt_bytea(column) || ...: the trigger \
                 encrypts it again.",
            ),
            Self::DoesNotOpen(_) => (
                "23000",
                "It was edited as bytes, or encrypted for another row. Decrypt the value it comes from, and write the plaintext: the \
                 trigger encrypts it.",
            ),
            Self::ContainsValue(_) => (
                "23000",
                "Decrypt the value first, and write plaintext. To encrypt an encrypted value again on purpose, SET \
                 envelope_pg.allow_double_encryption = on.",
            ),
            Self::SourceCompared(..) => (
                "42P17",
                "That constraint or index would find no two values equal. Drop it, and put it on the column of a blind index.",
            ),
            Self::NullAad(_) => ("22004", "It binds the value to its row."),
        }
    }
}
