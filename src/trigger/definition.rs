//! What a trigger is told in its arguments, resolved to the columns of its table, and kept until either changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use envelope_core::column_rule::{AadPart, ColumnRule};
use envelope_core::format::ValueType;
use envelope_core::format::edited::Fingerprint;
use envelope_core::search::{TokenKind, TokenRule};
use pgrx::pg_sys;
use pgrx::tupdesc::PgTupleDesc;

use crate::error::{Error, Fault};
use crate::pg::encoding::{from_utf8, to_utf8};
use crate::pg::firing::Firing;
use crate::pg::relcache;
use crate::pg::row_value::{ColumnOutput, ColumnPlaintext};
use crate::pg::typed::Plaintext;
use crate::pg::types::{base_type, type_name};
use crate::session::named_keys::KeyChoice;

/// A trigger's arguments.
pub struct Definition {
    relation: pg_sys::Oid,
    /// One for each argument.
    pub rules: Vec<Rule>,
    /// Whether it was said that replication does not find the rows again.
    pub has_warned: Cell<bool>,
}

/// How one column is encrypted.
pub struct Rule {
    /// What plaintext is written to.
    pub source: Column,
    /// What the encrypted value is stored in.
    pub target: Column,
    /// What values of the source's type are encrypted as.
    pub plaintext: ColumnPlaintext,
    /// The key and the encryption context.
    pub key: KeyChoice,
    /// What values are bound to.
    pub aad: Option<Vec<Part>>,
    /// The token columns beside it.
    pub tokens: Vec<Token>,
    /// The last value that an INSERT made: EXCLUDED, if an UPDATE is next.
    pub last_insert: RefCell<Option<LastInsert>>,
    /// What a publisher has sent of the column to this session.
    pub published: Cell<Option<Published>>,
}

impl Rule {
    /// The type that values of the target hold.
    pub fn value_type(&self) -> ValueType {
        self.plaintext.kind().value_type()
    }

    /// Whether source and target are one column.
    pub fn is_in_place(&self) -> bool {
        self.source.number == self.target.number
    }
}

/// What a publisher sends of an encrypted column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// The source, in clear.
    Plaintext,
    /// The target.
    Value,
}

/// A token column.
pub struct Token {
    /// What the tokens are stored in.
    pub column: Column,
    /// How.
    pub rule: TokenRule,
}

/// A column of the table.
pub struct Column {
    /// Its number.
    pub number: i32,
    /// Its name, for errors.
    pub name: String,
    /// Its type, if that is a domain.
    pub domain: Option<pg_sys::Oid>,
}

/// A part of an aad.
pub enum Part {
    /// Text in UTF-8.
    Text(String),
    /// The text of a column, from its type's output function.
    Column(Column, ColumnOutput),
}

/// A value that was made for a row, and what it is bound to.
pub struct LastInsert {
    /// Tells it from all others, and from what an edit leaves of it.
    pub fingerprint: Fingerprint,
    /// What it is bound to, if to anything.
    pub aad: Option<Vec<u8>>,
}

thread_local! {
    /// By the trigger's object identifier. `None` until PostgreSQL has been told to report changes of tables.
    static DEFINITIONS: RefCell<Option<HashMap<pg_sys::Oid, Rc<Definition>>>> = const { RefCell::new(None) };
}

/// The definition of a trigger.
///
/// # Errors
/// What is wrong with it.
pub fn of(firing: &Firing<'_>) -> Result<Rc<Definition>, Error> {
    let known = DEFINITIONS.with_borrow(|kept| kept.as_ref()?.get(&firing.trigger_oid()).cloned());
    if let Some(definition) = known {
        return Ok(definition);
    }
    if DEFINITIONS.with_borrow(Option::is_none) {
        relcache::on_change(forget);
        DEFINITIONS.set(Some(HashMap::new()));
    }
    let definition = Rc::new(Definition::resolve(firing)?);
    DEFINITIONS.with_borrow_mut(|kept| {
        kept.get_or_insert_default().insert(firing.trigger_oid(), Rc::clone(&definition));
    });
    Ok(definition)
}

/// For [`relcache::on_change`]. The map is never borrowed while PostgreSQL runs.
fn forget(relation: pg_sys::Oid) {
    DEFINITIONS.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            kept.retain(|_, definition| relation != pg_sys::InvalidOid && definition.relation != relation);
        }
    });
}

impl Definition {
    fn resolve(firing: &Firing<'_>) -> Result<Self, Error> {
        let arguments = firing.arguments();
        if arguments.is_empty() {
            return Err(firing.error(Fault::NoArguments, None).into());
        }
        let columns = firing.columns();
        let mut rules = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            let json = to_utf8(argument.to_bytes())?;
            let rule = ColumnRule::from_json(&String::from_utf8_lossy(&json))
                .map_err(Fault::Argument)
                .and_then(|rule| Rule::resolve(rule, firing, &columns))
                .map_err(|fault| firing.error(fault, Some(index + 1)))?;
            rules.push(rule);
        }
        check_used_once(&rules).map_err(|fault| firing.error(fault, None))?;
        Ok(Self { relation: firing.relation_oid(), rules, has_warned: Cell::new(false) })
    }
}

impl Rule {
    fn resolve(rule: ColumnRule, firing: &Firing<'_>, columns: &PgTupleDesc<'_>) -> Result<Self, Fault> {
        let is_in_place = rule.source == rule.target;
        let (source, attribute) = Column::find(rule.source, columns)?;
        let plaintext = match ColumnPlaintext::of_type(attribute.atttypid) {
            Some(plaintext) if plaintext.kind() == Plaintext::Bytea || !is_in_place => plaintext,
            _ => return Err(Fault::SourceType(source.name, type_name(attribute.atttypid))),
        };
        if let Some(constraint) = firing.comparing(source.number) {
            return Err(Fault::SourceCompared(source.name, constraint));
        }
        if attribute.attnotnull && !is_in_place {
            return Err(Fault::SourceNotNull(source.name));
        }
        let (target, attribute) = Column::find(rule.target, columns)?;
        if base_type(attribute.atttypid) != pg_sys::BYTEAOID {
            return Err(Fault::TargetType(target.name, type_name(attribute.atttypid)));
        }
        let tokens = rule
            .tokens
            .into_iter()
            .map(|token| Token::resolve(token, plaintext.kind().value_type(), columns))
            .collect::<Result<_, _>>()?;
        let resolve_part = |part: &AadPart| match part {
            AadPart::Text(text) => Ok(Part::Text(text.clone())),
            AadPart::Column(name) => Part::of_column(name.clone(), columns),
        };
        let aad = rule.aad.map(|aad| aad.parts().iter().map(resolve_part).collect::<Result<_, _>>()).transpose()?;
        Ok(Self {
            source,
            target,
            plaintext,
            key: KeyChoice::new(rule.key_id, rule.encryption_context),
            aad,
            tokens,
            last_insert: RefCell::new(None),
            published: Cell::new(None),
        })
    }
}

impl Token {
    fn resolve(rule: TokenRule, value_type: ValueType, columns: &PgTupleDesc<'_>) -> Result<Self, Fault> {
        let (column, attribute) = Column::find(rule.column.clone(), columns)?;
        let wanted = if matches!(rule.kind, TokenKind::Prefix(_)) { pg_sys::BYTEAARRAYOID } else { pg_sys::BYTEAOID };
        if base_type(attribute.atttypid) != wanted {
            return Err(Fault::TokenType(column.name, type_name(attribute.atttypid)));
        }
        let is_text = value_type == ValueType::Text;
        let has_text = is_text || (value_type == ValueType::Jsonb && rule.value_kind.is_some());
        let needs_text =
            rule.value_kind.is_some() || !rule.normalize.is_empty() || matches!(rule.kind, TokenKind::Prefix(_));
        if (value_type == ValueType::Jsonb || needs_text) && !has_text {
            return Err(Fault::TokenOfType(column.name, value_type.to_string()));
        }
        Ok(Self { column, rule })
    }
}

impl Part {
    /// A column whose text is the same in every session.
    fn of_column(name: String, columns: &PgTupleDesc<'_>) -> Result<Self, Fault> {
        let (column, attribute) = Column::find(name, columns)?;
        match base_type(attribute.atttypid) {
            pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::UUIDOID
            | pg_sys::TEXTOID
            | pg_sys::VARCHAROID => {}
            _ => return Err(Fault::AadType(column.name, type_name(attribute.atttypid))),
        }
        Ok(Self::Column(column, ColumnOutput::of_type(attribute.atttypid)))
    }
}

impl Column {
    /// A column by its name, which is in UTF-8.
    fn find<'a>(
        name: String,
        columns: &'a PgTupleDesc<'_>,
    ) -> Result<(Self, &'a pg_sys::FormData_pg_attribute), Fault> {
        // A name that the database's encoding does not have is the name of no column.
        let found = from_utf8(name.as_bytes()).ok().and_then(|wanted| {
            columns.iter().find(|attribute| {
                let name = attribute.attname.data.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
                !attribute.attisdropped && name.eq(wanted.iter().copied())
            })
        });
        let Some(attribute) = found else {
            return Err(Fault::NoColumn(name));
        };
        if attribute.attgenerated != 0 {
            return Err(Fault::Generated(name));
        }
        let domain = (base_type(attribute.atttypid) != attribute.atttypid).then_some(attribute.atttypid);
        Ok((Self { number: attribute.attnum.into(), name, domain }, attribute))
    }
}

/// A trigger that reads what another argument writes would depend on their order.
fn check_used_once(rules: &[Rule]) -> Result<(), Fault> {
    let mut written = Vec::new();
    for rule in rules {
        let target = (!rule.is_in_place()).then_some(&rule.target);
        let tokens = rule.tokens.iter().map(|token| &token.column);
        for column in [&rule.source].into_iter().chain(target).chain(tokens) {
            if written.contains(&column.number) {
                return Err(Fault::UsedTwice(column.name.clone()));
            }
            written.push(column.number);
        }
    }
    let parts = rules.iter().flat_map(|rule| rule.aad.iter().flatten());
    for part in parts {
        if let Part::Column(column, _) = part
            && written.contains(&column.number)
        {
            return Err(Fault::UsedTwice(column.name.clone()));
        }
    }
    Ok(())
}
