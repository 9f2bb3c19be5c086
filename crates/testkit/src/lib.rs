//! Throw-away PostgreSQL servers, a KMS emulator and a fault proxy between the two, for the server tests and the benchmarks.
#![forbid(unsafe_code)]

pub mod broker; //   the broker's process and files
pub mod builder; //  what a cluster is set to before it starts
pub mod catalog; //  what the catalog says of the extension
pub mod cluster; //  a throw-away PostgreSQL server and its settings
pub mod dialect; //  where the emulator differs from AWS
pub mod emulator; // the KMS emulator, one per test process
pub mod failure; //  what the server said when a statement failed
pub mod fault; //    the faults that the proxy can show, and the rules that choose one
pub mod fixture; //  a cluster with the extension and a key, in one line
pub mod http; //     just enough HTTP/1.1 for the emulator and the proxy
pub mod install; //  where PostgreSQL's programs are
pub mod process; //  child processes that end with the test process
pub mod proxy; //    the fault proxy
pub mod random; //   random numbers that are the same in each run
pub mod scratch; //  the temporary directory of the test process
pub mod session; //  short forms for what tests say to a client connection
pub mod tls; //      a TLS front before the fault proxy
pub mod usage; //    what a process uses: memory, descriptors, threads
pub mod waiting; //  waiting for what another process does

pub use broker::Stopped;
pub use builder::ClusterBuilder;
pub use catalog::Catalog;
pub use cluster::{Cluster, SettingGuard};
pub use emulator::{Emulator, KmsKey};
pub use failure::{Failure, expect_end, expect_error};
pub use fault::{Fault, Nonsense, Rule};
pub use fixture::Fixture;
pub use postgres::Client;
pub use proxy::FaultProxy;
pub use session::Session;
pub use tls::TlsFront;
pub use waiting::{is_reached_within, keep_doing, wait_until};
