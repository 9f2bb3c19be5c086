//! One session: encrypt, insert, decrypt, read headers.

use std::cell::RefCell;

use testkit::{Fixture, Session as _};

use crate::contender::{self, Contender};
use crate::measure::{Case, interleaved};
use crate::plan::{Plan, size_name};
use crate::session::Session;
use crate::table::{Table, ratio, time};

/// What envelope_pg should stay under, as a ratio to the passthrough: bytes, encrypt, decrypt.
const GOALS: [(usize, f64, f64); 3] = [(16, 4.0, 3.3), (1 << 10, 2.0, 1.9), (64 << 10, 1.25, 1.2)];
const INSPECTORS: [&str; 4] = ["env_is_envelope", "env_key_id", "env_dek_id", "env_encryption_context"];
const COLUMNS: [&str; 7] = ["", "encrypt", "ratio", "insert", "ratio", "decrypt", "ratio"];

/// Ratios to the passthrough of one contender at one size.
pub struct Ratios {
    pub bytes: usize,
    pub name: &'static str,
    pub encrypt: f64,
    pub decrypt: f64,
}

pub struct Single {
    pub markdown: String,
    pub ratios: Vec<Ratios>,
}

pub fn measure(fixture: &Fixture, plan: &Plan, has_pgsodium: bool) -> Single {
    let mut markdown = String::from(
        "## One session\n\nCPU time of the backend per row, and its ratio to the passthrough: `convert_to`, which copies a text \
         into a `bytea`, and `convert_from`, which copies it back.\n\n![ratios to the passthrough](benchmarks.svg)\n\n",
    );
    let mut ratios = Vec::new();
    for &(bytes, rows) in &plan.sizes {
        println!("one session, {}", size_name(bytes));
        let session = RefCell::new(Session::start(fixture));
        let mut contenders = contender::all(&fixture.key_id);
        if has_pgsodium {
            contenders.push(contender::pgsodium());
        }
        prepare(&mut session.borrow_mut(), &contenders, bytes, rows);
        let calls = fixture.proxy.total_calls();
        let costs = run(&session, &contenders, plan, bytes, rows);
        assert_eq!(fixture.proxy.total_calls(), calls, "no KMS call while the clock runs");
        markdown += &table(&contenders, &costs, bytes, rows);
        for (index, contender) in contenders.iter().enumerate().skip(1) {
            let [encrypt, _, decrypt] = [0, 1, 2].map(|what| costs[what][index] / costs[what][0]);
            ratios.push(Ratios { bytes, name: contender.name, encrypt, decrypt });
        }
        session.borrow_mut().client.run("DROP SCHEMA bench CASCADE");
    }
    Single { markdown, ratios }
}

/// Makes the tables, and the data keys.
fn prepare(session: &mut Session, contenders: &[Contender], bytes: usize, rows: usize) {
    // Hex digits: text that PostgreSQL could not compress much, if it tried.
    let blocks = bytes.div_ceil(32);
    session.client.run(&format!(
        "CREATE SCHEMA bench;
         CREATE TABLE bench.plain (plain text);
         ALTER TABLE bench.plain ALTER plain SET STORAGE EXTERNAL;
         INSERT INTO bench.plain SELECT left(string_agg(md5(row || '/' || block), ''), {bytes})
             FROM generate_series(1, {rows}) AS row, generate_series(1, {blocks}) AS block GROUP BY row"
    ));
    session.vacuum("bench.plain");
    for contender in contenders {
        let made = contender.rows(rows, bytes);
        let slug = contender.slug;
        for table in [format!("value_{slug}"), format!("sink_{slug}")] {
            session.client.run(&format!(
                "CREATE TABLE bench.{table} (value bytea); ALTER TABLE bench.{table} ALTER value SET STORAGE EXTERNAL"
            ));
        }
        session.client.run(&insert(contender, &format!("value_{slug}"), rows, bytes));
        session.vacuum(&format!("bench.value_{slug}"));
        // What is measured opens again: a wrong expression would be fast.
        let wrong: i64 = session.client.one(
            &format!(
                "SELECT count(*) FROM (SELECT plain, row_number() OVER () AS n FROM (SELECT plain FROM bench.plain LIMIT \
                 {made}) AS few) AS a FULL JOIN (SELECT {} AS plain, row_number() OVER () AS n FROM bench.value_{slug}) AS b \
                 USING (n) WHERE a.plain IS DISTINCT FROM b.plain",
                contender.decrypt
            ),
            &[],
        );
        assert_eq!(wrong, 0, "{}", contender.name);
    }
}

fn insert(contender: &Contender, table: &str, rows: usize, bytes: usize) -> String {
    let source = contender.source("bench.plain", contender.rows(rows, bytes), rows);
    format!("INSERT INTO bench.{table} SELECT {} FROM {source}", contender.encrypt)
}

/// The costs of encrypting, inserting, decrypting by contender, and of reading headers by function.
fn run(session: &RefCell<Session>, contenders: &[Contender], plan: &Plan, bytes: usize, rows: usize) -> [Vec<f64>; 4] {
    let count = |query: String, rows: usize| Case {
        rows,
        run: Box::new(move || session.borrow_mut().count_ns(&query, rows) as f64),
    };
    let encrypting = contenders.iter().map(|contender| {
        let made = contender.rows(rows, bytes);
        count(format!("SELECT count({}) FROM {}", contender.encrypt, contender.source("bench.plain", made, rows)), made)
    });
    let inserting = contenders.iter().map(|contender| {
        let statement = insert(contender, &format!("sink_{}", contender.slug), rows, bytes);
        let run = Box::new(move || {
            let mut session = session.borrow_mut();
            session.client.run(&format!("TRUNCATE bench.sink_{}", contender.slug));
            session.cost_ns(&statement) as f64
        });
        Case { rows: contender.rows(rows, bytes), run }
    });
    let decrypting = contenders.iter().map(|contender| {
        let query = format!("SELECT count({}) FROM bench.value_{}", contender.decrypt, contender.slug);
        count(query, contender.rows(rows, bytes))
    });
    let inspecting = INSPECTORS
        .iter()
        .map(|function| count(format!("SELECT count({function}(value)) FROM bench.value_envelope"), rows));
    [
        interleaved(plan.repetitions, encrypting.collect()),
        interleaved(plan.repetitions, inserting.collect()),
        interleaved(plan.repetitions, decrypting.collect()),
        interleaved(plan.repetitions, inspecting.collect()),
    ]
}

fn table(
    contenders: &[Contender],
    [encrypt, insert, decrypt, inspect]: &[Vec<f64>; 4],
    bytes: usize,
    rows: usize,
) -> String {
    let mut text = format!("### {}, {rows} rows\n\n", size_name(bytes));
    let mut table = Table::new(&COLUMNS);
    for (index, contender) in contenders.iter().enumerate() {
        let mut cells = vec![contender.name.to_owned()];
        for costs in [encrypt, insert, decrypt] {
            cells.extend([time(costs[index]), ratio(costs[index] / costs[0])]);
        }
        table.row(&cells);
    }
    if let Some((_, encrypt, decrypt)) = GOALS.iter().find(|(size, ..)| *size == bytes) {
        let goal = |goal: &f64| format!("<= {}", ratio(*goal));
        table.row(&[
            "*goal*".into(),
            String::new(),
            goal(encrypt),
            String::new(),
            String::new(),
            String::new(),
            goal(decrypt),
        ]);
    }
    text += &table.finish();
    let headers: Vec<_> =
        INSPECTORS.iter().zip(inspect).map(|(name, cost)| format!("`{name}` {}", time(*cost))).collect();
    text += &format!("Reading headers, per row: {}.\n\n", headers.join(", "));
    text
}
