//! What is wrong with a value or an argument, as a PostgreSQL error.

use envelope_core::error::{ArgumentError, ValueError};

/// SQLSTATE and HINT of what is wrong with a value.
pub fn sqlstate_and_hint(error: &ValueError) -> (&'static str, Option<&'static str>) {
    match error {
        ValueError::NotAnEnvelope => (
            "22P03",
            Some(
                "env_is_envelope(value) tells encrypted values from others. \
                 Text that has one in hexadecimal or base64 goes through decode(text, 'hex') first.",
            ),
        ),
        ValueError::Truncated | ValueError::Malformed(_) => {
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

/// HINT of what is wrong with an argument.
pub fn argument_hint(error: &ArgumentError) -> &'static str {
    match error {
        ArgumentError::KeyId(_) => {
            "Use a KMS key ARN, alias ARN, alias/name, key uuid or mrk-... of AWS KMS, key:name of a named key, or local:name of the local provider."
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
