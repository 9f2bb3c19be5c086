//! envelope_pg: column envelope encryption for PostgreSQL with AWS KMS.
//!
//! This crate is the PostgreSQL shell: it converts, calls `envelope_core` and raises. It has no cryptography and no parsing
//! of values. SQL declarations are in sql/, the value format is docs/FORMAT.md.
//!
//! - `functions`: the SQL functions that encrypt and decrypt
//! - `inspect`: the SQL functions that read headers
//! - `trigger`: the trigger function that encrypts columns
//! - `rotation`: the SQL functions that rewrap and reencrypt values, and what `env_rotate` is made of
//! - `verify`: the SQL functions that compare a value with a plaintext
//! - `rewrap`: data keys that are rewrapped, once each
//! - `prefetch`: many requests to KMS at a time
//! - `run_lock`: one rotation of a column at a time
//! - `admin`: the SQL functions for the cache and the local key file
//! - `statistics`: the SQL functions that show what happens
//! - `warm`: the aggregate that unwraps many data keys at once
//! - `session`: this backend's data keys, and when to ask KMS
//! - `refresh`: data keys that are refreshed in the background
//! - `statement`: how many KMS calls the current statement has made
//! - `journal`: what goes to the server's log, and how often
//! - `kms`: requests about data keys, through the broker or the bridge
//! - `broker`: the background worker that all sessions share, and how they ask it
//! - `bridge`: this backend's own thread that talks to KMS
//! - `shared`: counters that all processes of the server see
//! - `clock`: the time, cheaply
//! - `waiting`: the interruptible wait
//! - `threads`: threads beside the main thread
//! - `settings`: the settings `envelope_pg.*`
//! - `call`: arguments and results of SQL functions
//! - `result`: results that are more than bytes
//! - `encoding`: between the database's encoding and UTF-8
//! - `error`: what becomes which PostgreSQL error

// PostgreSQL finds the functions of this library by symbol; nothing links to them as Rust.
#![allow(missing_docs, reason = "no Rust API")]

mod admin;
mod bridge;
mod broker;
mod call;
mod clock;
mod encoding;
mod error;
mod functions;
mod inspect;
mod journal;
mod kms;
mod prefetch;
mod refresh;
mod result;
mod rewrap;
mod rotation;
mod run_lock;
mod session;
mod settings;
mod shared;
mod statement;
mod statistics;
mod threads;
mod trigger;
mod verify;
mod waiting;
mod warm;

use pgrx::prelude::*;

pgrx::pg_module_magic!();

/// PostgreSQL calls this when it loads the library: in a backend, or in the postmaster under shared_preload_libraries.
/// Nothing here may start a thread, open a file or draw a random number, since backends are forks of the postmaster.
#[pg_guard]
#[allow(non_snake_case)]
extern "C-unwind" fn _PG_init() {
    settings::define();
}
