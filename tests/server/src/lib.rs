//! What several test files share and no benchmark needs.
#![forbid(unsafe_code)]

pub mod adversary; // a table's owner who wants to be superuser
pub mod citus; //     a coordinator and two workers, where there is Citus
pub mod rotation; //  a table, the CALL, and what the view says of the run
pub mod soak; //      what the sessions of the soak test share
pub mod worker; //    one session of the soak test
