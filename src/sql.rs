//! The SQL functions: thin. What they do is in the floors below.
//!
//! - `functions`: those that encrypt and decrypt
//! - `inspect`: those that read headers
//! - `inventory`: the one that counts the values of a table by key
//! - `rotation`: those that rewrap and reencrypt values, and what `env_rotate` is made of
//! - `splice`: those that give values the wrapped keys of others
//! - `tolerant`: those that tell a damaged value from others
//! - `opens_to`: those that compare a value with a plaintext
//! - `search`: those that make search tokens
//! - `admin`: those for the cache and the local key file
//! - `named_keys`: the one that checks the options of a named key
//! - `check`: what `env_check` asks that SQL cannot know
//! - `statistics`: those that show what happens
//! - `warm`: the aggregate that unwraps many data keys at once

mod admin;
mod check;
pub mod functions;
pub mod inspect;
mod inventory;
mod named_keys;
mod opens_to;
mod rotation;
pub mod search;
mod splice;
mod statistics;
mod tolerant;
mod warm;
