//! Parallel query: the time of one scan by a session alone, and with 1 and 2 workers.

use std::cell::RefCell;

use testkit::{Fixture, Session as _};

use crate::measure::{Case, interleaved};
use crate::plan::Plan;
use crate::session::Session;
use crate::table::{Table, count, ratio};

const EXPRESSIONS: [(&str, &str); 2] =
    [("env_decrypt", "env_decrypt(value)"), ("convert_from", "convert_from(bytes, 'UTF8')")];

pub fn measure(fixture: &Fixture, plan: &Plan) -> String {
    println!("parallel query");
    let rows = plan.parallel_rows;
    let session = RefCell::new(Session::start(fixture));
    session.borrow_mut().client.run(&format!(
        "CREATE SCHEMA bench;
         CREATE TABLE bench.scan AS SELECT env_encrypt(left(md5(i::text), 16), '{}') AS value,
             convert_to(left(md5(i::text), 16), 'UTF8') AS bytes FROM generate_series(1, {rows}) AS i;
         SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0",
        fixture.key_id
    ));
    session.borrow_mut().vacuum("bench.scan");
    let mut cases = Vec::new();
    for (_, expression) in EXPRESSIONS {
        let query = format!("SELECT count({expression}) FROM bench.scan");
        for workers in 0..=2 {
            with_workers(&mut session.borrow_mut(), workers);
            assert_eq!(launched(&mut session.borrow_mut(), &query), workers, "workers that PostgreSQL started");
            let (query, session) = (query.clone(), &session);
            let run = Box::new(move || {
                let mut session = session.borrow_mut();
                with_workers(&mut session, workers);
                session.count_ms(&query, rows)
            });
            cases.push(Case { rows: 1, run });
        }
    }
    let times = interleaved(plan.repetitions, cases);
    session.borrow_mut().client.run("DROP SCHEMA bench CASCADE");

    let mut table = Table::new(&["", "no worker", "1 worker", "", "2 workers", ""]);
    for ((name, _), times) in EXPRESSIONS.iter().zip(times.chunks(3)) {
        let [alone, one, two] = [0, 1, 2].map(|workers| times[workers]);
        table.row(&[
            (*name).to_owned(),
            format!("{alone:.0} ms"),
            format!("{one:.0} ms"),
            ratio(alone / one),
            format!("{two:.0} ms"),
            ratio(alone / two),
        ]);
    }
    format!(
        "## Parallel query\n\nWall-clock time of `SELECT count(...)` over {} values of 16 B, and how many times faster it is than \
         without workers. The leader works too. Each worker is a new process that asks KMS (here: the emulator) for the data \
         keys it meets, once for each query.\n\n{}",
        count(rows as f64),
        table.finish()
    )
}

fn with_workers(session: &mut Session, workers: usize) {
    session.client.run(&format!("SET max_parallel_workers_per_gather = {workers}"));
}

fn launched(session: &mut Session, query: &str) -> usize {
    let plan: Vec<String> = session.client.column(&format!("EXPLAIN (ANALYZE, TIMING off) {query}"));
    let launched = plan.iter().find_map(|line| line.trim().strip_prefix("Workers Launched: "));
    launched.map_or(0, |launched| launched.parse().expect("a number"))
}
