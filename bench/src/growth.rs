//! How costs grow: with the data keys that are in use, with the sessions that connect at once, with the keys that are allowed.

use std::thread;
use std::time::Instant;

use testkit::usage::Usage;
use testkit::{Client, Cluster, Fixture, Session as _};

use crate::chart::{Line, growth};
use crate::measure::{Case, interleaved, median};
use crate::plan::Plan;
use crate::session::Session;
use crate::table::{Table, count, ratio, time};

/// Write at the same time.
const WRITERS: usize = 4;
const KEY: &str = "local:dev";

/// A page's text and the charts beside it, by the names of their files.
pub struct Growth {
    pub markdown: String,
    pub charts: Vec<(&'static str, String)>,
}

pub fn measure(fixture: &Fixture, plan: &Plan) -> Growth {
    println!("growth");
    let (data_keys, data_keys_chart) = data_keys(plan);
    let (connections, connections_chart) = connections(plan);
    let (allowed, allowed_chart) = allowed_keys(fixture, plan);
    Growth {
        markdown: format!("## How costs grow\n\n{data_keys}{connections}{allowed}"),
        charts: vec![
            ("benchmarks-data-keys.svg", data_keys_chart),
            ("benchmarks-connections.svg", connections_chart),
            ("benchmarks-allowed-keys.svg", allowed_chart),
        ],
    }
}

/// The local provider through the broker: what is measured is the broker and the caches, and no KMS.
fn with_broker() -> Fixture {
    let fixture = Fixture::local_with(
        Cluster::builder().setting("shared_buffers", "512MB").setting("jit", "off").setting("max_connections", "600"),
    );
    fixture.cluster.set("envelope_pg.broker", "on");
    fixture
}

/// One value under each of so many encryption contexts, in random order, by several sessions; ns a value of all together.
fn write(clients: &mut [Client], contexts: usize, values: usize) -> f64 {
    let each = values / clients.len();
    let query = format!(
        "SELECT count(env_encrypt('a short text', '{KEY}', jsonb_build_object('tenant', (random() * {contexts})::int::text)))
         FROM generate_series(1, {each})"
    );
    let started = Instant::now();
    thread::scope(|scope| {
        for client in clients.iter_mut() {
            let query = &query;
            scope.spawn(move || assert_eq!(client.one::<i64>(query, &[]), each as i64));
        }
    });
    started.elapsed().as_secs_f64() * 1e9 / (each * clients.len()) as f64
}

fn data_keys(plan: &Plan) -> (String, String) {
    let mut table = Table::new(&[
        "data keys",
        "write, 4 sessions, random",
        "writes a second",
        "read in turn, a new session",
        "read again",
        "read at random",
        "memory of the broker",
        "evicted and needed again",
    ]);
    let (mut writing, mut reading, mut at_random) = (Vec::new(), Vec::new(), Vec::new());
    for &contexts in &plan.data_keys {
        let fixture = with_broker();
        let values = plan.growth_values.max(2 * contexts);
        let mut clients: Vec<Client> = (0..WRITERS).map(|_| fixture.connect()).collect();
        // Each context gets its data key, and is one row of the table.
        clients[0].run(&format!(
            "CREATE TABLE grown AS SELECT n AS id, env_encrypt('a short text', '{KEY}', jsonb_build_object('tenant', n::text)) AS value
             FROM generate_series(0, {contexts}) AS n;
             ALTER TABLE grown ADD PRIMARY KEY (id); ANALYZE grown"
        ));
        let written = write(&mut clients, contexts, values);
        let rounds = (plan.growth_values / contexts).max(1);
        let in_turn = format!("SELECT count(env_decrypt(value)) FROM generate_series(1, {rounds}), grown");
        let random = format!(
            "SELECT count(env_decrypt(value)) FROM (SELECT (random() * {contexts})::int AS id FROM generate_series(1, {}) OFFSET 0) AS r
             JOIN grown USING (id)",
            plan.growth_values
        );
        let mut reader = fixture.connect();
        reader.run("SET enable_material = off; SET max_parallel_workers_per_gather = 0");
        // By the index.
        reader.run("SET enable_hashjoin = off; SET enable_mergejoin = off");
        let mut timed = |query: &str| {
            let started = Instant::now();
            let rows: i64 = reader.one(query, &[]);
            started.elapsed().as_secs_f64() * 1e9 / rows as f64
        };
        let (first, second, third) = (timed(&in_turn), timed(&in_turn), timed(&random));
        let evicted: i64 = fixture.connect().one("SELECT evicted_needed FROM env_stat_broker", &[]);
        table.row(&[
            count(contexts as f64),
            time(written),
            count(1e9 / written),
            time(first),
            time(second),
            time(third),
            format!("{:.0} MB", Usage::of(fixture.cluster.broker()).memory_kb as f64 / 1e3),
            count(evicted as f64),
        ]);
        writing.push((contexts as f64, written));
        reading.push((contexts as f64, first));
        at_random.push((contexts as f64, third));
    }
    let lines = [
        Line { name: "write, 4 sessions, random order", points: writing },
        Line { name: "read in turn, a new session", points: reading },
        Line { name: "read at random, by an index", points: at_random },
    ];
    let chart = growth("What does a value cost with more data keys?", "data keys in use", "ns a value", &lines);
    let text = format!(
        "### Data keys\n\nA value under each of so many data keys, one encryption context each, settings as they come: what a session does not keep it asks the broker \
         for. Elapsed time a value; the local provider, so that no KMS is in it.\n\n![What does a value cost with more data keys?](benchmarks-data-keys.svg)\n\n{}",
        table.finish()
    );
    (text, chart)
}

/// The ms of each of so many sessions that connect at once, from connect to the end of their first query.
fn at_once(fixture: &Fixture, sessions: usize, first: &(dyn Fn(&mut Client) + Sync)) -> f64 {
    let mut times: Vec<f64> = thread::scope(|scope| {
        let connect = || {
            let started = Instant::now();
            let mut client = fixture.connect();
            first(&mut client);
            (started.elapsed().as_secs_f64() * 1e3, client)
        };
        let threads: Vec<_> = (0..sessions).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a session").0).collect()
    });
    median(&mut times)
}

/// The ms of `SELECT 1` and of a first value, for each number of sessions at once.
fn first_values(plan: &Plan, preload: bool) -> Vec<[f64; 2]> {
    let fixture = with_broker();
    if preload {
        fixture.cluster.set("shared_preload_libraries", "envelope_pg");
        fixture.cluster.restart();
    }
    let value = fixture.connect().encrypt("a text", KEY);
    let measured = plan.sessions_at_once.iter().map(|&sessions| {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..plan.repetitions.min(5) {
            costs[0].push(at_once(&fixture, sessions, &|client| client.run("SELECT 1")));
            costs[1].push(at_once(&fixture, sessions, &|client| assert_eq!(client.decrypt(&value), "a text")));
        }
        costs.map(|mut costs| median(&mut costs))
    });
    measured.collect()
}

fn connections(plan: &Plan) -> (String, String) {
    let mut table = Table::new(&[
        "sessions at once",
        "`SELECT 1`",
        "a value",
        "ratio",
        "preloaded: `SELECT 1`",
        "a value",
        "ratio",
    ]);
    let costs = [false, true].map(|preload| first_values(plan, preload));
    for (&sessions, (loaded, preloaded)) in plan.sessions_at_once.iter().zip(costs[0].iter().zip(&costs[1])) {
        let cells = [loaded, preloaded]
            .map(|[without, with]| [format!("{without:.1} ms"), format!("{with:.1} ms"), ratio(with / without)]);
        table.row(&[[sessions.to_string()].as_slice(), cells.as_flattened()].concat());
    }
    let points = |costs: &[[f64; 2]], which: usize| {
        plan.sessions_at_once.iter().zip(costs).map(|(&sessions, cost)| (sessions as f64, cost[which])).collect()
    };
    let lines = [
        Line { name: "SELECT 1", points: points(&costs[0], 0) },
        Line { name: "a first value", points: points(&costs[0], 1) },
        Line { name: "a first value, library preloaded", points: points(&costs[1], 1) },
    ];
    let chart = growth("How long does a session wait that connects with others?", "sessions at once", "ms", &lines);
    let text = format!(
        "### Sessions that connect at once\n\nMedian time from connect to the end of the first query, all sessions at the same time; the broker has the data \
         key. Without `shared_preload_libraries` each session loads the library.\n\n![How long does a session wait that connects with others?](benchmarks-connections.svg)\n\n{}",
        table.finish()
    );
    (text, chart)
}

fn allowed_keys(fixture: &Fixture, plan: &Plan) -> (String, String) {
    let rows = plan.growth_values;
    fixture.cluster.sql("SELECT env_local_create_key('dev')");
    fixture.cluster.sql(&format!(
        "CREATE TABLE allowed AS SELECT env_encrypt('a short text', '{KEY}') AS value FROM generate_series(1, {rows})"
    ));
    let costs = interleaved(
        plan.repetitions,
        plan.allowed_keys
            .iter()
            .map(|&keys| {
                let mut session = Session::start(fixture);
                let arns = (1..keys)
                    .map(|key| format!("arn:aws:kms:us-west-2:111122223333:key/00000000-0000-4000-8000-{key:012}"));
                let list = if keys == 0 {
                    String::new()
                } else {
                    [KEY.to_owned()].into_iter().chain(arns).collect::<Vec<_>>().join(",")
                };
                session.client.run(&format!("SET envelope_pg.allowed_keys = '{list}'"));
                let run = move || session.count_ns("SELECT count(env_decrypt(value)) FROM allowed", rows) as f64;
                Case { rows, run: Box::new(run) }
            })
            .collect(),
    );
    let mut table = Table::new(&["allowed keys", "decrypt, CPU time a row", "ratio to none"]);
    let mut points = Vec::new();
    for (&keys, &cost) in plan.allowed_keys.iter().zip(&costs) {
        table.row(&[keys.to_string(), time(cost), ratio(cost / costs[0])]);
        points.push((keys.max(1) as f64, cost));
    }
    let lines = [Line { name: "decrypt", points }];
    let chart = growth("What does a list of allowed keys cost?", "keys in the list", "ns a value", &lines);
    let text = format!(
        "### Allowed keys\n\nThe key of the values first, and ARNs behind it.\n\n![What does a list of allowed keys cost?](benchmarks-allowed-keys.svg)\n\n{}",
        table.finish()
    );
    (text, chart)
}
