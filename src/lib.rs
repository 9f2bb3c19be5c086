//! envelope_pg: column envelope encryption for PostgreSQL with AWS KMS.
//!
//! This crate is the PostgreSQL shell: it converts, calls `envelope_core` and raises. It has no cryptography and no parsing
//! of values. SQL declarations are in sql/, the value format is docs/FORMAT.md.
//!
//! From the top floor down; a floor imports those below it only:
//!
//! - `sql`: the SQL functions
//! - `trigger`: the trigger function that encrypts columns
//! - `session`: this backend's data keys, and when to ask for them
//! - `ask`: how requests about data keys reach a key provider: the broker, or this backend's own thread
//! - `pg`: what touches PostgreSQL's memory and the system: all `unsafe` code
//! - `error`: what becomes which PostgreSQL error

// PostgreSQL finds the functions of this library by symbol; nothing links to them as Rust.
#![allow(missing_docs, reason = "no Rust API")]

mod ask;
mod error;
mod pg;
mod session;
mod sql;
mod trigger;

use pgrx::prelude::*;

pgrx::pg_module_magic!();

/// PostgreSQL calls this when it loads the library: in a backend, or in the postmaster under shared_preload_libraries.
/// Nothing here may start a thread, open a file or draw a random number, since backends are forks of the postmaster.
#[pg_guard]
#[allow(non_snake_case)]
extern "C-unwind" fn _PG_init() {
    pg::report::without_backtraces();
    pg::key_memory::give_to_aws_lc();
    pg::settings::define();
}
