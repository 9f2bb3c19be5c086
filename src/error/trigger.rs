//! Why an encrypting trigger refuses its definition or a row. The texts have names of columns, and never values.

use envelope_core::error::ArgumentError;
use pgrx::PgSqlErrorCode;
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
    /// 22004: the column.
    #[error("column \"{0}\" is part of an aad and must not be null")]
    NullAad(String),
}

impl Fault {
    /// SQLSTATE and HINT; the HINT of an argument is that of its own error.
    pub fn sqlstate_and_hint(&self) -> (PgSqlErrorCode, &'static str) {
        use PgSqlErrorCode as Code;
        match self {
            Self::NotATrigger | Self::WrongKind(_) => (
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "CREATE TRIGGER name BEFORE INSERT OR UPDATE ON table FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(...)",
            ),
            Self::NoArguments | Self::Argument(_) => {
                (Code::ERRCODE_INVALID_PARAMETER_VALUE, "Give a JSON object for each column that the trigger encrypts.")
            }
            Self::NoColumn(_) => (
                Code::ERRCODE_UNDEFINED_COLUMN,
                "The trigger finds columns by name, letter by letter. If one was renamed, create the trigger again.",
            ),
            Self::SourceType(..) => (
                Code::ERRCODE_DATATYPE_MISMATCH,
                "A source is text, varchar, bytea or jsonb, or a domain over one of them; in place it is bytea.",
            ),
            Self::TargetType(..) => (Code::ERRCODE_DATATYPE_MISMATCH, "A target is bytea, or a domain over it."),
            Self::AadType(..) => (
                Code::ERRCODE_DATATYPE_MISMATCH,
                "It takes columns whose text does not depend on settings: smallint, integer, bigint, numeric, uuid, text, varchar.",
            ),
            Self::Generated(_) => {
                (Code::ERRCODE_INVALID_OBJECT_DEFINITION, "PostgreSQL computes generated columns after this trigger.")
            }
            Self::SourceNotNull(_) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                "Drop the constraint of the source; the target can have it, and the source CHECK (source IS NULL).",
            ),
            Self::UsedTwice(_) => (
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                "A source or target belongs to one argument only, and is not part of an aad.",
            ),
            Self::BothSet(..) => (
                Code::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
                "Set the source to have it encrypted, or the target to a value that is encrypted already, and the other to null.",
            ),
            Self::SourceSetToNull(..) => (
                Code::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
                "To clear the value set the target to null. EXCLUDED has it in the target, encrypted already. To leave it as it \
                 is, take the source out of SET, or set the target to itself.",
            ),
            Self::NotEncrypted(_) => (
                Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
                "Write plaintext to the source of the trigger; the target takes what env_encrypt returned.",
            ),
            Self::AadChanged(_) => (
                Code::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
                "Set the plaintext in the same UPDATE, to have it encrypted for the changed row.",
            ),
            Self::OfAnotherRow(_) => (
                Code::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
                "EXCLUDED was encrypted for the row that was not inserted. The aad needs columns that are the same in both rows.",
            ),
            Self::NullAad(_) => (Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, "It binds the value to its row."),
        }
    }
}
