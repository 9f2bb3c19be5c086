//! The token columns of an encrypting trigger: they are of the value that is stored, or the row is refused.

use envelope_core::format::{Envelope, ValueType};
use envelope_core::search::{IndexKey, Searchable, TokenKind, ValueKind, normalize};
use zeroize::Zeroizing;

use super::definition::{Rule, Token};
use super::{Changes, aad_text, check_domain};
use crate::error::{Error, Fault};
use crate::pg::encoding::{from_utf8, to_utf8};
use crate::pg::firing::Firing;
use crate::pg::made::Made;
use crate::pg::room;
use crate::pg::row_value::RowValue;
use crate::pg::scalars::Scalar;
use crate::session;
use crate::session::index_keys;
use crate::sql::search::{bucket, searchable};

/// Fills the token columns, after the values are known.
pub fn fill(firing: &Firing<'_>, rules: &[Rule], changes: &mut Changes) -> Result<(), Error> {
    for rule in rules.iter().filter(|rule| !rule.tokens.is_empty()) {
        let changed =
            changes.iter().find(|(column, _)| *column == rule.target.number).map(|(_, value)| value.is_some());
        match (changed, firing.new_value(rule.target.number)) {
            (Some(false), _) | (None, None) => clear(firing, rule, changes)?,
            (Some(true), _) => {
                let plaintext = firing.new_value(rule.source.number).expect("what was sealed");
                let plaintext = plaintext.plaintext(rule.plaintext)?;
                let plaintext = match rule.value_type() {
                    ValueType::Bytea => room::copy_of(&plaintext)?,
                    ValueType::Text | ValueType::Jsonb => room::copy_of(&to_utf8(&plaintext)?)?,
                };
                fill_all(firing, rule, &plaintext, changes)?;
            }
            // What comes by replication or a restore is taken as it is: a subscriber need not have the key.
            (None, Some(_)) if firing.is_replica() => {}
            (None, Some(value)) if is_asked(firing, rule) => {
                let plaintext = open(firing, rule, value)?;
                fill_all(firing, rule, &plaintext, changes)?;
            }
            (None, Some(_)) => {}
        }
    }
    Ok(())
}

/// Whether a statement that leaves the source alone sets the value or a token: also to what it was, which asks for a new one.
fn is_asked(firing: &Firing<'_>, rule: &Rule) -> bool {
    firing.is_insert()
        || firing.is_changed(rule.target.number)
        || rule.tokens.iter().any(|token| {
            let column = token.column.number;
            firing.is_changed(column) || (firing.new_value(column).is_none() && firing.is_in_set_list(column))
        })
}

/// No value, no token.
fn clear(firing: &Firing<'_>, rule: &Rule, changes: &mut Changes) -> Result<(), Error> {
    for Token { column, .. } in &rule.tokens {
        if firing.new_value(column.number).is_some() {
            if firing.is_changed(column.number) && !firing.is_replica() {
                return Err(firing.error(Fault::NotAToken(column.name.clone()), None).into());
            }
            check_domain(column, None);
            changes.push((column.number, None));
        }
    }
    Ok(())
}

fn open(firing: &Firing<'_>, rule: &Rule, value: RowValue<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let aad = rule.aad.as_ref().map(|aad| aad_text(firing, aad)).transpose()?;
    let envelope = Envelope::parse(value.varlena().bytes())?;
    let cached = session::opening_key(&envelope.head)?;
    let mut plaintext = room::zeroed(envelope.ciphertext.len())?;
    let bytes = cached.data_key().open(&envelope, aad.as_deref(), &mut plaintext)?;
    plaintext.truncate(bytes);
    Ok(plaintext)
}

fn fill_all(firing: &Firing<'_>, rule: &Rule, plaintext: &[u8], changes: &mut Changes) -> Result<(), Error> {
    for token in &rule.tokens {
        let number = token.column.number;
        let index_name = from_utf8(token.rule.index.as_bytes())?;
        let index = index_keys::index(&index_name)?;
        let make = |key: &IndexKey| {
            make(token, rule.value_type(), plaintext, key)?
                .ok_or_else(|| firing.error(Fault::NoToken(token.column.name.clone()), None).into())
        };
        let given = firing.new_value(number).filter(|_| firing.is_changed(number));
        if let Some(given) = given {
            let versions = match token.rule.version {
                Some(_) => vec![index.version(token.rule.version)?],
                None => index.live()?,
            };
            let tokens = versions.iter().map(|version| make(version.key())).collect::<Result<Vec<Made>, Error>>()?;
            if !tokens.iter().any(|token| token.varlena().is_same(given.varlena())) {
                return Err(firing.error(Fault::NotAToken(token.column.name.clone()), None).into());
            }
            continue;
        }
        let made = make(index.version(token.rule.version)?.key())?;
        check_domain(&token.column, Some(&made));
        changes.push((number, Some(made)));
    }
    Ok(())
}

/// The token of a plaintext. `None`: it is not of the type of the rule.
fn make(token: &Token, value_type: ValueType, plaintext: &[u8], key: &IndexKey) -> Result<Option<Made>, Error> {
    let rule = &token.rule;
    if value_type == ValueType::Bytea {
        return token_of(rule.kind.clone(), &Searchable::bytea(plaintext), key).map(Some);
    }
    let text = String::from_utf8_lossy(plaintext);
    room::check(text.len())?;
    let text = match value_type {
        // A string or a number; what else there is in JSON is no value of the types.
        ValueType::Jsonb if text.starts_with('"') => match serde_json::from_str::<String>(&text) {
            Ok(text) => text.into(),
            Err(_) => return Ok(None),
        },
        _ => text,
    };
    let text = normalize(&text, &rule.normalize)?;
    let Some(kind) = rule.value_kind else {
        return match &rule.kind {
            TokenKind::Prefix(lengths) => {
                let tokens: Vec<_> = key.prefix_tokens(&text, lengths).collect();
                Made::bytea_array(tokens.iter().map(|token| &token[..])).map(Some)
            }
            kind => token_of(kind.clone(), &Searchable::text(text.as_bytes()), key).map(Some),
        };
    };
    let Some(value) = Scalar::parse(kind, &text) else {
        return Ok(None);
    };
    match &rule.kind {
        TokenKind::Bucket { width, origin } => {
            let (Some(width), Some(origin)) = (Scalar::parse_width(kind, width), Scalar::parse(kind, origin)) else {
                return Ok(None);
            };
            Made::bytea_of(&key.bucket_token(bucket(value, width, origin)?)).map(Some)
        }
        equality => token_of(equality.clone(), &searchable(value)?, key).map(Some),
    }
}

fn token_of(kind: TokenKind, value: &Searchable<'_>, key: &IndexKey) -> Result<Made, Error> {
    match kind {
        TokenKind::Equality(Some(bits)) => Made::bytea_of(&key.short_token(value, bits)),
        _ => Made::bytea_of(&key.equality_token(value)),
    }
}

const _: () = assert!(ValueKind::Text as u8 == ValueType::Text as u8, "one type, one number");
