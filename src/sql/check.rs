//! What `env_check` asks that SQL cannot know: of this process, of the values of a table, of the key providers. As JSON, of which
//! sql/check makes findings. Never a value, a credential or key material.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env;
use std::ops::ControlFlow;
use std::path::PathBuf;

use envelope_broker::protocol::{Command, Response};
use envelope_core::error::ValueError;
use envelope_core::format::Head;
use envelope_core::keys::KeyId;
use envelope_core::keys::named::NAME_PREFIX;
use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use envelope_kms::{KeyDescription, Settings};
use pgrx::datum::Array;
use pgrx::pg_sys::{Datum, Oid};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::ask::{broker, journal, own_thread, shared_counters};
use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::result::jsonb_datum;
use crate::pg::varlena::VarlenaDatum;
use crate::pg::{key_memory, settings, table_scan};
use crate::session::named_keys;

sql_functions! {
    env_check_server, pg_finfo_env_check_server => server;
    env_check_values, pg_finfo_env_check_values => values;
    env_check_keys, pg_finfo_env_check_keys => keys;
}

/// Data keys, wrappings and keys of a column that are told apart, each: above that a column has many.
const MAX_DISTINCT: usize = 100_000;

/// An object with what this process is set to and sees. Nothing is asked of AWS.
fn server(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let settings = settings::kms_settings();
    let broker = match broker::send_to_running(&Command::Status) {
        Ok(Some(Response::Status(_))) => json!({"running": true}),
        Ok(_) => json!({"running": false}),
        Err(error) => json!({"running": true, "problem": error.report().detail}),
    };
    let facts = json!({
        "region_source": region_source(&settings),
        "credentials_source": credentials_source(&settings),
        "has_static_credentials": has_variable("AWS_ACCESS_KEY_ID"),
        "local_keyring": settings.local_keyring.is_some(),
        "keys_are_locked": key_memory::is_locked(),
        "core_limit_is_zero": getrlimit(Resource::Core).current == Some(0),
        "shared_problem": shared_counters::problem(),
        "broker": broker,
    });
    jsonb_datum(&facts.to_string()).map(Some)
}

fn region_source(settings: &Settings) -> Option<&'static str> {
    let variable = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find(|name| has_variable(name));
    match &settings.aws.region {
        Some(_) => Some("envelope_pg.kms_region"),
        None => variable.or_else(|| profile_source(settings, "AWS_CONFIG_FILE", "config")).or_else(instance),
    }
}

/// Where the SDK's standard chain will look first, by what is there; whether it finds any is known when KMS is asked.
fn credentials_source(settings: &Settings) -> Option<&'static str> {
    match () {
        () if settings.aws.profile.is_some() => Some("envelope_pg.kms_profile"),
        () if has_variable("AWS_ACCESS_KEY_ID") && has_variable("AWS_SECRET_ACCESS_KEY") => Some("environment"),
        () if has_variable("AWS_WEB_IDENTITY_TOKEN_FILE") => Some("web identity"),
        () if has_variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
            || has_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") =>
        {
            Some("container")
        }
        () => profile_source(settings, "AWS_SHARED_CREDENTIALS_FILE", "credentials")
            .or_else(|| profile_source(settings, "AWS_CONFIG_FILE", "config"))
            .or_else(instance),
    }
}

fn profile_source(settings: &Settings, variable: &str, file: &str) -> Option<&'static str> {
    let path = env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".aws").join(file)));
    let named = settings.aws.profile.is_some() || has_variable("AWS_PROFILE");
    (named || path.is_some_and(|path| path.exists())).then_some("AWS configuration files")
}

fn instance() -> Option<&'static str> {
    let is_disabled = env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    (!is_disabled).then_some("instance metadata")
}

fn has_variable(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// What a column's values are, as far as they were looked at.
#[derive(Default)]
struct Column {
    rows: u64,
    nulls: u64,
    /// Neither NULL nor values of ours.
    others: u64,
    with_aad: u64,
    without_aad: u64,
    types: BTreeMap<String, u64>,
    data_keys: HashSet<[u8; 32]>,
    /// What the values say of their data keys, wrapped keys included.
    wrappings: HashSet<Box<[u8]>>,
    key_ids: BTreeSet<String>,
}

/// A relation, the numbers of its columns, and how many rows to look at, NULL for all: an array with an object for each column.
fn values(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let relation = Oid::from(call.datum(0).ok_or(Error::NullArgument("relation"))?.value() as u32);
    let numbers: Vec<i16> = call.smallint_array(1).iter().flat_map(Array::iter).flatten().collect();
    let mut rows_left = call.bigint(2).map_or(u64::MAX, i64::unsigned_abs);
    let mut columns: Vec<Column> = numbers.iter().map(|_| Column::default()).collect();
    table_scan::scan(relation, &numbers, |_, values| {
        if rows_left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        rows_left -= 1;
        columns.iter_mut().zip(values).for_each(|(column, value)| column.add(*value));
        Ok(ControlFlow::Continue(()))
    })?;
    let columns: Vec<Value> = numbers.iter().zip(&columns).map(|(number, column)| column.json(*number)).collect();
    jsonb_datum(&Value::Array(columns).to_string()).map(Some)
}

impl Column {
    fn add(&mut self, value: Option<VarlenaDatum<'_>>) {
        self.rows += 1;
        match value {
            None => self.nulls += 1,
            Some(value) if value.with_head(|head| self.add_head(head)).is_err() => self.others += 1,
            Some(_) => {}
        }
    }

    fn add_head(&mut self, head: &Head<'_>) -> Result<(), ValueError> {
        let identity = head.dek_identity();
        if !self.wrappings.contains(identity) && self.wrappings.len() < MAX_DISTINCT {
            head.encryption_context()?;
            self.key_ids.extend(head.wrapped_keys()?.into_iter().map(|key| key.key_id));
            self.data_keys.insert(head.commitment().0);
            self.wrappings.insert(identity.into());
        }
        *self.types.entry(head.value_type.to_string()).or_default() += 1;
        match head.flags.aad {
            true => self.with_aad += 1,
            false => self.without_aad += 1,
        }
        Ok(())
    }

    fn json(&self, number: i16) -> Value {
        json!({
            "number": number,
            "rows": self.rows,
            "nulls": self.nulls,
            "others": self.others,
            "with_aad": self.with_aad,
            "without_aad": self.without_aad,
            "type": self.types.iter().max_by_key(|(_, rows)| **rows).map(|(name, _)| name),
            "data_keys": self.data_keys.len(),
            "wrappings": self.wrappings.len(),
            "key_ids": self.key_ids,
        })
    }
}

/// Key ids, as a JSON array: an array with an object for each, of what its provider says. All are asked at the same time, and
/// no longer than one KMS call may take.
fn keys(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let text = to_utf8(call.jsonb_text(0).ok_or(Error::NullArgument("key_ids"))?.to_bytes())?;
    let key_ids: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    let mut rows = Vec::new();
    let mut asked = Vec::new();
    for key_id in key_ids {
        match resolved(&key_id) {
            Ok(key) => asked.push((key_id, key)),
            Err(error) => rows.push(failed(&key_id, &error)),
        }
    }
    let time = settings::kms_timeout();
    let ids: Vec<String> = asked.iter().map(|(key_id, _)| key_id.clone()).collect();
    let answers = own_thread::call(move |providers| async move {
        let mut tasks = tokio::task::JoinSet::new();
        for (index, (_, key)) in asked.into_iter().enumerate() {
            let providers = std::rc::Rc::clone(&providers);
            tasks.spawn_local(async move { (index, providers.describe_key(&key).await) });
        }
        let mut answers = BTreeMap::new();
        let _ = tokio::time::timeout(time, async {
            while let Some(Ok((index, answer))) = tasks.join_next().await {
                answers.insert(index, answer);
            }
        })
        .await;
        answers
    })?;
    journal::write_events();
    rows.extend(ids.iter().enumerate().map(|(index, key_id)| match answers.get(&index) {
        Some(Ok(description)) => described(key_id, description),
        Some(Err(error)) => failed(key_id, &error.clone().into()),
        None => failed(key_id, &KmsError::new(KmsErrorKind::TimedOut, Operation::DescribeKey, key_id).into()),
    }));
    jsonb_datum(&Value::Array(rows).to_string()).map(Some)
}

fn resolved(key_id: &str) -> Result<KeyId, Error> {
    match key_id.starts_with(NAME_PREFIX) {
        true => Ok(KeyId::parse(&named_keys::key_id(key_id)?)?),
        false => Ok(KeyId::parse(key_id)?),
    }
}

fn described(key_id: &str, description: &KeyDescription) -> Value {
    json!({
        "key_id": key_id,
        "key_arn": description.key_arn,
        "state": description.state,
        "encrypts_symmetrically": description.encrypts_symmetrically,
        "is_rotated": description.is_rotated,
        "clock_ahead_seconds": description.clock_ahead_seconds,
    })
}

fn failed(key_id: &str, error: &Error) -> Value {
    let report = error.report();
    json!({
        "key_id": key_id,
        "sqlstate": report.sqlstate,
        "message": report.message,
        "detail": report.detail,
        "hint": report.hint,
    })
}
