//! What the core's own benchmarks have measured: a value without PostgreSQL.

use std::fs;

use crate::plan::Plan;
use crate::table::Table;

/// Criterion's lines `name time: [low median high]`, as scripts/bench.sh has kept them, if it did.
pub fn table(plan: &Plan) -> String {
    let measured = fs::read_to_string(plan.input.join("core.txt")).unwrap_or_default();
    let mut table = Table::new(&["", "time"]);
    let mut rows = 0;
    let mut name = "";
    for line in measured.lines() {
        // A long name has a line of its own.
        let (before, after) = line.split_once("time:").unwrap_or((line, ""));
        if !before.trim().is_empty() {
            name = before.trim();
        }
        // How it compares with an earlier run on this machine is not for the page.
        if name == "change:" {
            continue;
        }
        if let Some([_, _, median, unit, ..]) =
            after.trim().strip_prefix('[').map(|times| times.split(' ').collect::<Vec<_>>()).as_deref()
        {
            table.row(&[name.to_owned(), format!("{median} {unit}")]);
            rows += 1;
        }
    }
    if rows == 0 {
        return String::new();
    }
    format!(
        "## The core alone\n\nWithout PostgreSQL (`make bench-core`): `seal` and `open` are whole values, with their nonce and their header; \
         `AES-256-GCM` compares the implementations of the cipher, each with a key that it has not seen and a header of 40 \
         bytes, as a value needs it.\n\n{}",
        table.finish()
    )
}
