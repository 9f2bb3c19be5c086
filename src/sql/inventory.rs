//! The SQL function that counts the values of a table by key: from their heads, so that no KMS and no right to decrypt is needed.

use std::collections::{BTreeSet, HashSet};
use std::ops::{ControlFlow, RangeInclusive};

use envelope_core::error::ValueError;
use envelope_core::format::Head;
use pgrx::datum::Array;
use pgrx::pg_sys::{Datum, Oid};

use crate::error::Error;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::result::jsonb_datum;
use crate::pg::table_scan;
use crate::pg::varlena::VarlenaDatum;

sql_functions! {
    env_count_values, pg_finfo_env_count_values => count_values;
}

/// What begins so and has not the form of a value is damaged, or of a later release. Other data does once in a million values.
const UNREADABLE: RangeInclusive<[u8; 3]> = [0xf6, 0x45, 0x01]..=[0xf6, 0x45, 0x0f];

/// The values of a column that have something in common.
struct Group {
    content: &'static str,
    key_id: Option<String>,
    rows: u64,
    /// Commitments.
    deks: HashSet<[u8; 32]>,
    first_block: u32,
    last_block: u32,
}

/// The groups of a column: what its values are, and for envelopes the key.
#[derive(Default)]
struct Column {
    groups: Vec<Group>,
    /// What the value before said about its data key, and the groups of the keys that wrap it: mostly the next one says the same.
    last: Option<(Vec<u8>, Vec<usize>)>,
}

/// A relation, and the numbers of its columns, as int8: a JSON array of groups, of the columns that hold any value.
fn count_values(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let relation = Oid::from(call.datum(0).expect("sql/ declares the function STRICT").value() as u32);
    let numbers: Vec<i16> = call.smallint_array(1).iter().flat_map(Array::iter).flatten().collect();
    let mut columns: Vec<Column> = numbers.iter().map(|_| Column::default()).collect();
    table_scan::scan(relation, &numbers, |block, values| {
        for (column, value) in columns.iter_mut().zip(values) {
            column.add(block, *value);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let groups: Vec<serde_json::Value> =
        numbers.iter().zip(&columns).flat_map(|(number, column)| column.json(*number)).collect();
    jsonb_datum(&serde_json::Value::Array(groups).to_string()).map(Some)
}

impl Column {
    fn add(&mut self, block: u32, value: Option<VarlenaDatum<'_>>) {
        let Some(value) = value else {
            return self.add_to("null", block);
        };
        if value.with_head(|head| self.add_envelope(block, head)).is_err() {
            let begins_so = value.first_bytes(3).first_chunk::<3>().is_some_and(|bytes| UNREADABLE.contains(bytes));
            self.add_to(if begins_so { "unreadable" } else { "no envelope" }, block);
        }
    }

    fn add_envelope(&mut self, block: u32, head: &Head<'_>) -> Result<(), ValueError> {
        let identity = head.dek_identity();
        if self.last.as_ref().is_none_or(|(last, _)| last != identity) {
            head.encryption_context()?;
            head.key_id()?;
            let key_ids: BTreeSet<String> = head.wrapped_keys()?.into_iter().map(|key| key.key_id).collect();
            let groups: Vec<usize> = key_ids.into_iter().map(|key_id| self.group("envelope", Some(key_id))).collect();
            for group in &groups {
                self.groups[*group].deks.insert(head.commitment().0);
            }
            self.last = Some((identity.to_vec(), groups));
        }
        if let Some((_, groups)) = &self.last {
            groups.iter().for_each(|group| self.groups[*group].add(block));
        }
        Ok(())
    }

    fn add_to(&mut self, content: &'static str, block: u32) {
        let group = self.group(content, None);
        self.groups[group].add(block);
    }

    /// The place of a group, which is made if it is new.
    fn group(&mut self, content: &'static str, key_id: Option<String>) -> usize {
        let known = self.groups.iter().position(|group| group.content == content && group.key_id == key_id);
        known.unwrap_or_else(|| {
            let deks = HashSet::new();
            self.groups.push(Group { content, key_id, rows: 0, deks, first_block: u32::MAX, last_block: 0 });
            self.groups.len() - 1
        })
    }

    /// Nothing for a column without any value.
    fn json(&self, number: i16) -> impl Iterator<Item = serde_json::Value> {
        let is_listed = self.groups.iter().any(|group| matches!(group.content, "envelope" | "unreadable"));
        self.groups.iter().filter(move |_| is_listed).map(move |group| {
            serde_json::json!({
                "number": number,
                "content": group.content,
                "key_id": group.key_id,
                "rows": group.rows,
                "deks": (group.content == "envelope").then_some(group.deks.len()),
                "first_block": group.first_block,
                "last_block": group.last_block,
            })
        })
    }
}

impl Group {
    fn add(&mut self, block: u32) {
        self.rows += 1;
        self.first_block = self.first_block.min(block);
        self.last_block = self.last_block.max(block);
    }
}
