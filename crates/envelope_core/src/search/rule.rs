//! What an encrypting trigger is told about a token column: a JSON object in the list `tokens` of a column's rule.
//!
//! ```text
//! {"column": "ssn_token", "index": "person.ssn", "normalize": ["digits"]}
//! {"column": "name_tokens", "index": "person.name", "kind": "prefix", "lengths": [3, 4, 5], "normalize": ["nfkc", "lower"]}
//! {"column": "born_token", "index": "person.born", "kind": "bucket", "type": "date", "width": "30", "origin": "1900-01-01"}
//! ```

use serde::{Deserialize, Deserializer};

use super::{PrefixLengths, Step, TokenBits, ValueKind};

/// How one token column is filled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenRule {
    /// The column that the tokens are stored in: a bytea, of prefixes a bytea[].
    pub column: String,
    /// The name of the index key.
    pub index: String,
    /// The version that makes the tokens; the latest one without it.
    pub version: Option<i32>,
    /// What is done with a text before.
    pub normalize: Vec<Step>,
    /// What the text is read as, if as something else.
    pub value_kind: Option<ValueKind>,
    /// What the tokens are of.
    pub kind: TokenKind,
}

/// What tokens are of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenKind {
    /// Whole values; with bits, groups of them.
    Equality(Option<TokenBits>),
    /// Prefixes of a text.
    Prefix(PrefixLengths),
    /// Buckets of numbers and times: width and origin, as PostgreSQL reads them.
    Bucket {
        /// The width.
        width: String,
        /// The first value of a bucket.
        origin: String,
    },
}

/// The object as it is written. As with a column's rule an unknown, missing, repeated or null field is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    column: String,
    index: String,
    #[serde(default, deserialize_with = "not_null")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    version: Option<i32>,
    #[serde(default, deserialize_with = "not_null")]
    normalize: Option<Vec<String>>,
    #[serde(default, deserialize_with = "not_null", rename = "type")]
    value_type: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    bits: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    lengths: Option<Vec<i64>>,
    #[serde(default, deserialize_with = "not_null")]
    width: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    origin: Option<String>,
}

fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<Fields> for TokenRule {
    /// Completes the sentence "token ...".
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, &'static str> {
        let value_kind = match fields.value_type.as_deref() {
            None => None,
            Some("bigint") => Some(ValueKind::Bigint),
            Some("numeric") => Some(ValueKind::Numeric),
            Some("date") => Some(ValueKind::Date),
            Some("timestamptz") => Some(ValueKind::Timestamptz),
            Some("uuid") => Some(ValueKind::Uuid),
            Some(_) => return Err("has a \"type\" that is not bigint, numeric, date, timestamptz or uuid"),
        };
        let bits = fields.bits.map(TokenBits::new).transpose().map_err(|_| "has \"bits\" that are not 1 to 32")?;
        let kind = match (fields.kind.as_deref(), bits, fields.lengths, fields.width, fields.origin) {
            (None | Some("equality"), bits, None, None, None) => TokenKind::Equality(bits),
            (Some("prefix"), None, Some(lengths), None, None) if value_kind.is_none() => TokenKind::Prefix(
                PrefixLengths::new(&lengths).map_err(|_| "has \"lengths\" that are not ascending, from 3 to 8")?,
            ),
            (Some("bucket"), None, None, Some(width), Some(origin))
                if value_kind.is_some_and(|kind| kind != ValueKind::Uuid) =>
            {
                TokenKind::Bucket { width, origin }
            }
            (None | Some("equality" | "prefix" | "bucket"), ..) => {
                return Err(
                    "has fields that do not fit its \"kind\": equality has \"bits\" or none, prefix has \"lengths\", \
                            bucket has \"type\", \"width\" and \"origin\"",
                );
            }
            (Some(_), ..) => return Err("has a \"kind\" that is not equality, prefix or bucket"),
        };
        let steps = fields.normalize.unwrap_or_default();
        let normalize = steps.iter().map(|step| step.parse()).collect::<Result<_, _>>();
        Ok(Self {
            column: fields.column,
            index: fields.index,
            version: fields.version,
            normalize: normalize
                .map_err(|_| "has a step in \"normalize\" that is not lower, nfkc, trim, digits or email")?,
            value_kind,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<TokenRule, String> {
        let fields: Fields = serde_json::from_str(json).map_err(|error| error.to_string())?;
        TokenRule::try_from(fields).map_err(str::to_owned)
    }

    #[test]
    fn takes_every_kind() {
        let rule =
            parse(r#"{"column": "a", "index": "i", "normalize": ["trim", "lower"], "bits": 8, "version": 2}"#).unwrap();
        assert_eq!((rule.column.as_str(), rule.index.as_str(), rule.version), ("a", "i", Some(2)));
        assert_eq!(rule.normalize, [Step::Trim, Step::Lower]);
        assert_eq!(rule.kind, TokenKind::Equality(TokenBits::new(8).ok()));
        let rule = parse(r#"{"column": "a", "index": "i", "kind": "prefix", "lengths": [3, 5]}"#).unwrap();
        assert_eq!(rule.kind, TokenKind::Prefix(PrefixLengths::new(&[3, 5]).unwrap()));
        let rule = parse(
            r#"{"column": "a", "index": "i", "kind": "bucket", "type": "date", "width": "30", "origin": "1900-01-01"}"#,
        )
        .unwrap();
        assert_eq!(rule.kind, TokenKind::Bucket { width: "30".into(), origin: "1900-01-01".into() });
        assert_eq!(rule.value_kind, Some(ValueKind::Date));
    }

    #[test]
    fn refuses_every_slip() {
        for (json, says) in [
            (r#"{"index": "i"}"#, "missing field `column`"),
            (r#"{"column": "a"}"#, "missing field `index`"),
            (r#"{"column": "a", "index": "i", "bit": 8}"#, "unknown field `bit`"),
            (r#"{"column": "a", "index": "i", "bits": null}"#, "null"),
            (r#"{"column": "a", "index": "i", "bits": 40}"#, "not 1 to 32"),
            (r#"{"column": "a", "index": "i", "kind": "like"}"#, "is not equality"),
            (r#"{"column": "a", "index": "i", "kind": "prefix"}"#, "do not fit"),
            (r#"{"column": "a", "index": "i", "kind": "prefix", "lengths": [1]}"#, "ascending"),
            (r#"{"column": "a", "index": "i", "kind": "prefix", "lengths": [3], "bits": 3}"#, "do not fit"),
            (r#"{"column": "a", "index": "i", "kind": "bucket", "width": "3", "origin": "0"}"#, "do not fit"),
            (r#"{"column": "a", "index": "i", "lengths": [3]}"#, "do not fit"),
            (r#"{"column": "a", "index": "i", "type": "boolean"}"#, "is not bigint"),
            (r#"{"column": "a", "index": "i", "normalize": ["upper"]}"#, "is not lower"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
