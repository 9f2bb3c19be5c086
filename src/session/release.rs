//! Whether this library and the SQL objects of the database are of one release.

use std::cell::Cell;

use crate::pg::extension::version_of_objects;
use crate::pg::report::warn;

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

thread_local! {
    static COMPARED: Cell<bool> = const { Cell::new(false) };
}

/// Warns once in a session if they are not. They go on working: a library has what the objects of earlier releases call.
pub fn compare() {
    if COMPARED.replace(true) {
        return;
    }
    if let Some(objects) = version_of_objects().filter(|objects| objects != LIBRARY) {
        warn(
            "envelope_pg's library and its SQL objects in this database are not of one release",
            format!("The library that this session has loaded is {LIBRARY}, the SQL objects are {objects}."),
            "Run ALTER EXTENSION envelope_pg UPDATE if the library is newer; else install the files of the newer release. \
             Sessions that began before the library was replaced keep the old one: open new ones.",
        );
    }
}
