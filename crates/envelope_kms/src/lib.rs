//! The key providers of envelope_pg: who makes, unwraps and rewraps data keys.
//!
//! - [`provider`]: what every provider does
//! - [`providers`]: all of them behind one
//! - [`aws`]: AWS KMS
//! - [`local`]: keys in a file, for trying things out and for tests
//! - [`breaker`]: when not to call a service
//! - [`event`]: what is worth a line in the log
//! - [`statistics`]: counts of the calls
//! - [`aliases`]: which key an alias stood for
//! - [`lasting`]: what outlives the providers of some settings
//! - [`limiter`]: how many calls a server makes in a second

#![forbid(unsafe_code)]

pub mod aliases;
pub mod aws;
mod aws_settings;
pub mod breaker;
pub mod event;
pub mod lasting;
pub mod limiter;
pub mod local;
pub mod provider;
pub mod providers;
pub mod statistics;

pub use aliases::{Aliases, Resolution};
pub use event::{Event, Events};
pub use lasting::Lasting;
pub use limiter::Limiter;
pub use provider::{GeneratedKey, KeyDescription, KeyProvider, UnwrappedKey};
pub use providers::{Providers, Settings};
pub use statistics::Statistics;
