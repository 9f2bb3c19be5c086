//! The server's broker: one holder of data keys for all sessions, so that their number does not grow with the sessions, and
//! a new session's first value costs no call to a key provider. Knows no PostgreSQL.
//!
//! It is asked over a Unix socket, one request after the other on a connection. Sessions check `allowed_keys` and their grants themselves:
//! whoever may connect is the server's own user, and could as well ask the providers.
//!
//! - [`protocol`]: the bytes on the socket
//! - [`framing`]: messages out of bytes that come in pieces, for both ends
//! - [`busy_poll`]: looking for a message before going to sleep, for both ends
//! - [`server`]: who may connect, and how a request is served
//! - [`broker`]: how a request is answered
//! - [`store`]: the data keys
//! - [`bounded`]: the maps that they are in
//! - [`flight`]: equal requests at the same time become one call
//! - [`begun`]: how many calls a request has begun
//! - [`look_ahead`]: which data keys a scan is about to ask for

#![forbid(unsafe_code)]

pub mod begun;
pub mod bounded;
pub mod broker;
pub mod busy_poll;
pub mod flight;
pub mod framing;
pub mod look_ahead;
pub mod protocol;
pub mod server;
pub mod store;

pub use broker::Broker;
