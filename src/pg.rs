//! What touches PostgreSQL's memory and the system: all `unsafe` code, and nothing else.
//!
//! - `call`: arguments and results of SQL functions
//! - `result`: results that are more than bytes
//! - `encoding`: between the database's encoding and UTF-8
//! - `settings`: the settings `envelope_pg.*`
//! - `run_lock`: one rotation of a column at a time
//! - `clock`: the time, cheaply
//! - `waiting`: the interruptible wait
//! - `threads`: threads beside the main thread

pub mod call;
pub mod clock;
pub mod encoding;
pub mod result;
pub mod run_lock;
pub mod settings;
pub mod threads;
pub mod waiting;
