//! The SQL functions for this session's cache and for the key file of the local provider.

use envelope_broker::protocol::Command;
use envelope_core::keys::LocalKeyName;
use envelope_kms::local::LocalKms;
use pgrx::pg_sys::Datum;

use crate::ask::{broker, own_thread, shared_counters};
use crate::error::Error;
use crate::pg::encoding::to_utf8;
use crate::pg::function_call::{FunctionCall, sql_functions};
use crate::pg::settings;
use crate::pg::varlena::Varlena;
use crate::session;
use crate::session::rewrap;
use crate::sql::functions::{context_argument, key_id_argument};

sql_functions! {
    env_cache_flush, pg_finfo_env_cache_flush => cache_flush;
    env_rotate_dek, pg_finfo_env_rotate_dek => rotate_dek;
    env_kms_reconnect, pg_finfo_env_kms_reconnect => kms_reconnect;
    env_broker_stop, pg_finfo_env_broker_stop => broker_stop;
    env_local_create_key, pg_finfo_env_local_create_key => local_create_key;
    env_local_rotate_key, pg_finfo_env_local_rotate_key => local_rotate_key;
}

fn cache_flush(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let everywhere = call.arguments() > 0 && call.datum(0).ok_or(Error::NullArgument("everywhere"))?.value() != 0;
    rewrap::flush();
    let flushed = if everywhere { session::flush_everywhere()? } else { session::flush() };
    Ok(Some(Datum::from(flushed as i32)))
}

fn rotate_dek(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let key_id = key_id_argument(call, 0, "key_id")?;
    let context = context_argument(call, 1)?;
    let made = session::rotate_dek(&key_id, context.as_ref())?;
    made.map(|cached| Varlena::copy_of(&cached.data_key().commitment().0)).transpose()
}

fn kms_reconnect(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    shared_counters::reconnect().map_err(Error::SharedCounters)?;
    Ok(Some(Datum::null()))
}

fn broker_stop(_call: &FunctionCall) -> Result<Option<Datum>, Error> {
    Ok(Some(Datum::from(broker::send_to_running(&Command::Stop)?.is_some())))
}

fn local_create_key(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let name = key_name(call)?;
    let keyring = LocalKms::new(settings::kms_settings().local_keyring.clone());
    let key_id = own_thread::call(move |_| async move { keyring.create_key(&name).await })??;
    Varlena::copy_of(key_id.as_bytes()).map(Some)
}

fn local_rotate_key(call: &FunctionCall) -> Result<Option<Datum>, Error> {
    let name = key_name(call)?;
    let keyring = LocalKms::new(settings::kms_settings().local_keyring.clone());
    let version = own_thread::call(move |_| async move { keyring.rotate_key(&name).await })??;
    Ok(Some(Datum::from(version as i32)))
}

fn key_name(call: &FunctionCall) -> Result<LocalKeyName, Error> {
    let name = call.bytes(0).ok_or(Error::NullArgument("name"))?;
    let name = to_utf8(name)?;
    // People may write the whole key id.
    let name = String::from_utf8_lossy(name.strip_prefix(b"local:").unwrap_or(&name));
    Ok(LocalKeyName::parse(&name)?)
}
