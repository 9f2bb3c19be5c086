//! What an encrypting trigger is told about one column: a JSON object.
//!
//! ```text
//! {"source": "ssn", "target": "ssn_enc", "key_id": "alias/app",
//!  "encryption_context": {"table": "person"}, "aad": "person.ssn:{id}",
//!  "tokens": [{"column": "ssn_token", "index": "person.ssn"}]}
//! ```
//! The last three may be left out. Columns in braces stand for the text of the row's value; `{{` and `}}` for a brace.

use serde::{Deserialize, Deserializer};

use crate::context::EncryptionContext;
use crate::error::ArgumentError;
use crate::keys::KeyId;
use crate::keys::named::NAME_PREFIX;
use crate::search::{TokenRule, rule};

/// How one column is encrypted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColumnRule {
    /// The column that plaintext is written to.
    pub source: String,
    /// The column that the encrypted value is stored in; the source itself to encrypt in place.
    pub target: String,
    /// A key id that was checked for its form.
    pub key_id: String,
    /// The encryption context, possibly empty.
    pub encryption_context: EncryptionContext,
    /// What values are bound to, if to anything.
    pub aad: Option<AadTemplate>,
    /// The token columns beside it.
    pub tokens: Vec<TokenRule>,
}

/// The object as it is written. An unknown, missing, repeated or null field is an error: a slip must not turn off a part of
/// the protection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    source: String,
    target: String,
    key_id: String,
    #[serde(default, deserialize_with = "not_null")]
    encryption_context: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "not_null")]
    aad: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    tokens: Option<Vec<rule::Fields>>,
}

fn what_is_wrong(error: &serde_json::Error) -> String {
    match error.is_data() {
        true => error.to_string(),
        false => format!("it is no JSON (line {}, column {})", error.line(), error.column()),
    }
}

fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl ColumnRule {
    /// Parses a trigger's argument.
    ///
    /// # Errors
    /// [`ArgumentError::ColumnRule`] for anything but such an object, and the errors of its key id and context.
    pub fn from_json(json: &str) -> Result<Self, ArgumentError> {
        let fields: Fields =
            serde_json::from_str(json).map_err(|error| ArgumentError::ColumnRule(what_is_wrong(&error)))?;
        if !fields.key_id.starts_with(NAME_PREFIX) {
            KeyId::parse(&fields.key_id)?;
        }
        let context = fields.encryption_context.map(|object| serde_json::Value::Object(object).to_string());
        let invalid_aad = |reason: &str| ArgumentError::ColumnRule(format!("\"aad\" {reason}"));
        let tokens = fields.tokens.unwrap_or_default().into_iter().map(TokenRule::try_from).collect::<Result<_, _>>();
        Ok(Self {
            tokens: tokens.map_err(|reason| ArgumentError::ColumnRule(format!("a token {reason}")))?,
            source: fields.source,
            target: fields.target,
            key_id: fields.key_id,
            encryption_context: context
                .map(|json| EncryptionContext::from_json(&json))
                .transpose()?
                .unwrap_or_default(),
            aad: fields.aad.map(|text| AadTemplate::parse(&text)).transpose().map_err(invalid_aad)?,
        })
    }
}

/// Text with columns in it. There is one column at least: without one the aad would bind no value to its row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AadTemplate(Vec<AadPart>);

/// A part of an [`AadTemplate`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AadPart {
    /// Text as it is.
    Text(String),
    /// The name of a column, whose value goes here.
    Column(String),
}

impl AadTemplate {
    /// Parses text with columns in braces; the error completes the sentence "the aad ...".
    fn parse(text: &str) -> Result<Self, &'static str> {
        const UNBALANCED: &str = "has a brace that is not part of {column}; write {{ or }} for a brace";
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                rest = &rest[2..];
                continue;
            }
            let (column, tail) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(UNBALANCED)?;
            if column.is_empty() || column.contains('{') {
                return Err(UNBALANCED);
            }
            if !literal.is_empty() {
                parts.push(AadPart::Text(std::mem::take(&mut literal)));
            } else if !parts.is_empty() {
                // 1 and 23 would be the same as 12 and 3.
                return Err("has two columns with nothing between them");
            }
            parts.push(AadPart::Column(column.to_owned()));
            rest = tail;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Err("names no column; write a column in braces, such as \"person.ssn:{id}\"");
        }
        if !literal.is_empty() {
            parts.push(AadPart::Text(literal));
        }
        Ok(Self(parts))
    }

    /// The parts in order.
    #[must_use]
    pub fn parts(&self) -> &[AadPart] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AadPart {
        AadPart::Text(text.to_owned())
    }

    fn column(name: &str) -> AadPart {
        AadPart::Column(name.to_owned())
    }

    #[test]
    fn takes_all_fields_and_the_least() {
        let least = r#"{"source": "a", "target": "b", "key_id": "local:dev"}"#;
        let rule = ColumnRule::from_json(least).unwrap();
        assert_eq!((rule.source.as_str(), rule.target.as_str(), rule.key_id.as_str()), ("a", "b", "local:dev"));
        assert_eq!((rule.encryption_context, rule.aad), (EncryptionContext::default(), None));
        let all = r#"{"aad": "t.a:{id}", "encryption_context": {"t": "1"}, "source": "a", "target": "b", "key_id": "alias/x"}"#;
        let rule = ColumnRule::from_json(all).unwrap();
        assert_eq!(rule.encryption_context, EncryptionContext::from_json(r#"{"t": "1"}"#).unwrap());
        assert_eq!(rule.aad.unwrap().parts(), [text("t.a:"), column("id")]);
    }

    #[test]
    fn refuses_every_slip() {
        for (json, says) in [
            ("", "it is no JSON (line 1, column 0)"),
            ("ssn", "it is no JSON (line 1, column 1)"),
            ("[]", "invalid"),
            (r#"{"source": "a", "key_id": "local:dev"}"#, "missing field `target`"),
            (r#"{"source": "a", "target": "b"}"#, "missing field `key_id`"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "add": "{id}"}"#, "unknown field `add`"),
            (r#"{"source": "a", "source": "c", "target": "b", "key_id": "local:dev"}"#, "duplicate field `source`"),
            (r#"{"source": "a", "target": "b", "key_id": null}"#, "null"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "aad": null}"#, "null"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "encryption_context": null}"#, "null"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "encryption_context": {"n": 1}}"#, "context"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "encryption_context": "x"}"#, "string"),
            (r#"{"source": "a", "target": "b", "key_id": "dev"}"#, "invalid key id"),
            (r#"{"source": "a", "target": "b", "key_id": "local:dev", "aad": "id"}"#, "names no column"),
        ] {
            let error = ColumnRule::from_json(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn templates_have_one_reading() {
        for (template, parts) in [
            ("{id}", vec![column("id")]),
            ("note:{tenant}:{id}", vec![text("note:"), column("tenant"), text(":"), column("id")]),
            ("{{{id}}}", vec![text("{"), column("id"), text("}")]),
            ("{a b}é", vec![column("a b"), text("é")]),
        ] {
            assert_eq!(AadTemplate::parse(template).unwrap().parts(), parts, "{template}");
        }
        for template in ["", "id", "{}", "{id", "id}", "{{id}}", "{a{b}", "{a}}", "}{id}", "{a}{b}"] {
            assert!(AadTemplate::parse(template).is_err(), "{template}");
        }
    }
}
