//! What touches PostgreSQL's memory and the system: all `unsafe` code, and nothing else.
//!
//! - `function_call`: one call of a SQL function: its arguments and its result
//! - `call_site`: what is kept at a place that calls a SQL function, in `fn_extra`
//! - `aggregate`: the state of an aggregation
//! - `varlena`: text and bytea, read and written
//! - `head`: the head of an encrypted value, without the rest of it
//! - `heap`: the heap of Rust code, wiped
//! - `registers`: the vector registers, wiped
//! - `key_memory`: memory for keys: no core dump, wiped on fork, locked
//! - `jsonb`: jsonb to and from JSON text
//! - `firing`: one call of a trigger function
//! - `row_value`: values of a row, with the types of their columns
//! - `room`: memory whose size a statement decides
//! - `made`: values that are made here, to be stored in a row
//! - `comparing`: what compares the values of a column
//! - `definition_lock`: a lock on what runs when the rows of a table are read or changed
//! - `typed`: values of other types, as text or JSON that is the same in every session
//! - `types`: what the catalog says of types
//! - `relcache`: notices that a table has changed
//! - `report`: error reports in the database's encoding
//! - `result`: results that are more than bytes
//! - `encoding`: between the database's encoding and UTF-8
//! - `scalars`: arguments of fixed types that have search tokens
//! - `index_keys`: the table of index keys
//! - `settings`: the settings `envelope_pg.*`
//! - `extension`: what the catalog says of the extension
//! - `backend`: what PostgreSQL knows of this process
//! - `exit`: what is done when the process ends
//! - `shared_page`: the page of the buffer pool that a value is on
//! - `statement_end`: what is done when the current statement has ended
//! - `idle`: a look at the process once in a while, also while it waits for its client
//! - `shared_memory`: a file that processes map, to share counters
//! - `foreign_servers`: the named keys in the catalogs, and who may use them
//! - `run_lock`: one rotation of a column at a time
//! - `table_scan`: a scan of a table that runs nothing of its owner's
//! - `clock`: the time, cheaply
//! - `waiting`: the interruptible wait
//! - `threads`: threads beside the main thread

pub mod aggregate;
pub mod backend;
pub mod call_site;
pub mod clock;
pub mod comparing;
pub mod definition_lock;
pub mod encoding;
pub mod exit;
pub mod extension;
pub mod firing;
pub mod foreign_servers;
pub mod function_call;
pub mod head;
mod heap;
pub mod idle;
pub mod index_keys;
pub mod jsonb;
pub mod key_memory;
pub mod made;
pub mod registers;
pub mod relcache;
pub mod report;
pub mod result;
pub mod room;
pub mod row_value;
pub mod run_lock;
pub mod scalars;
pub mod settings;
pub mod shared_memory;
pub mod shared_page;
pub mod statement_end;
pub mod table_scan;
pub mod threads;
pub mod typed;
pub mod types;
pub mod varlena;
pub mod waiting;
