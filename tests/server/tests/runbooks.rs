//! docs/ADOPTION.md and docs/ROTATION.md word by word: their blocks run in order, while an application under a role of its own goes on
//! writing and reading with statements that nobody changes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::install::Installation;
use testkit::random::Random;
use testkit::{Client, Emulator, Fixture, KmsKey, Session, process, wait_until};

/// A fenced block of a page, and the line it begins in.
struct Block {
    line: usize,
    language: String,
    text: String,
}

/// The blocks of a page that run: those without a language show something, and a comment says why one is not run.
fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(path).expect("the page is there");
    let mut found = Vec::new();
    let mut open: Option<(Block, bool)> = None;
    let mut before = String::new();
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(language), None) => {
                let block = Block { line: number + 1, language: language.to_owned(), text: String::new() };
                open = Some((block, !language.is_empty() && !before.contains("<!-- not run:")));
            }
            (Some(_), Some((block, true))) => found.push(block),
            (Some(_), Some((_, false))) => {}
            (None, Some((mut block, runs))) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some((block, runs));
            }
            (None, None) => {}
        }
        if !line.trim().is_empty() {
            before = line.to_owned();
        }
    }
    found
}

/// What the page calls keys, and what the emulator does.
struct Keys {
    alias: &'static str,
    old: KmsKey,
    new: KmsKey,
}

impl Keys {
    /// All tests have one emulator, so each has an alias of its own.
    fn make(fixture: &Fixture, alias: &'static str) -> Self {
        let keys = Self { alias, old: fixture.new_key(), new: fixture.new_key() };
        Emulator::shared().create_alias(alias, &keys.old);
        keys
    }

    fn in_place(&self, text: &str) -> String {
        text.replace("arn:aws:kms:...:key/old", &self.old.arn)
            .replace("arn:aws:kms:...:key/new", &self.new.arn)
            .replace("alias/patients", self.alias)
    }
}

/// Runs a block as a reader would, by psql or a shell; the one AWS command by the emulator.
fn run(fixture: &Fixture, keys: &Keys, page: &str, block: &Block) {
    let text = keys.in_place(&block.text);
    if text.trim_start().starts_with("aws kms update-alias") {
        return Emulator::shared().update_alias(keys.alias, &keys.new);
    }
    let script = fixture.cluster.directory().join("block");
    std::fs::write(&script, &text).expect("the script can be written");
    process::give_to_server(&script);
    let psql = Installation::current().program("psql");
    let mut command = if block.language == "sql" {
        let mut command = fixture.cluster.tool("psql");
        command.args(["-qX", "-v", "ON_ERROR_STOP=1", "-f"]);
        command
    } else {
        let mut command = process::as_server("/bin/bash");
        for (name, value) in fixture.cluster.tool("psql").get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let programs = psql.parent().expect("it is in a directory").display().to_string();
        command.env("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
        command.args(["-eu", "-o", "pipefail"]);
        command
    };
    let ran = command.env("PGDATABASE", "postgres").arg(&script).output().expect("it can be started");
    let printed = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "docs/{page}, line {}:\n{text}\n{printed}", block.line);
}

/// What an application says to the table.
#[derive(Clone, Copy)]
struct Statements<'a> {
    insert: &'a str,
    update: &'a str,
    read: &'a str,
}

/// Writes and reads patients until it is told to stop; says what it wrote last of each. It never fails, and always reads what it wrote.
fn work(mut client: Client, statements: Statements<'_>, stop: &AtomicBool) -> HashMap<i64, Option<String>> {
    let mut random = Random::new(7);
    let mut written: HashMap<i64, Option<String>> = HashMap::new();
    let mut ids: Vec<i64> = Vec::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let text = Some(format!("diagnosis number {count}"));
        let id: i64 = client.one(statements.insert, &[&"somebody", &text]);
        written.insert(id, text);
        ids.push(id);
        let id = ids[random.below(ids.len() as i64) as usize];
        let text = (count % 5 != 0).then(|| format!("changed by number {count}"));
        assert_eq!(client.execute(statements.update, &[&id, &text]).unwrap_or_else(|error| panic!("{error:?}")), 1);
        written.insert(id, text);
        let name = "UPDATE patient SET name = 'somebody else' WHERE id = $1";
        assert_eq!(client.execute(name, &[&id]).unwrap_or_else(|error| panic!("{error:?}")), 1);
        let id = ids[random.below(ids.len() as i64) as usize];
        assert_eq!(client.one::<Option<String>>(statements.read, &[&id]), written[&id], "row {id}");
        thread::sleep(Duration::from_millis(5));
    }
    written
}

/// Runs the blocks of a page that come before a heading with the application, and the others without.
fn run_page(fixture: &Fixture, keys: &Keys, page: &str, statements: Statements<'_>, until: usize) {
    let stop = AtomicBool::new(false);
    let blocks = blocks(page);
    let written = thread::scope(|scope| {
        let application = fixture.connect_as("clinic", &[]);
        let running = scope.spawn(|| work(application, statements, &stop));
        for block in blocks.iter().filter(|block| block.line < until) {
            run(fixture, keys, page, block);
            assert!(!running.is_finished(), "the application ended after docs/{page}, line {}", block.line);
        }
        // It goes on behind the last of them.
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        running.join().expect("the application never fails")
    });
    println!("docs/{page}: {} blocks while {} rows were written", blocks.len(), written.len());
    assert!(written.len() > 20, "{}", written.len());
    let mut reader = fixture.connect_as("clinic", &[]);
    for (id, text) in &written {
        assert_eq!(reader.one::<Option<String>>(statements.read, &[id]), *text, "row {id}");
    }
    for block in blocks.iter().filter(|block| block.line >= until) {
        run(fixture, keys, page, block);
    }
}

/// The line of a heading.
fn line_of(page: &str, heading: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(path).expect("the page is there");
    text.lines().position(|line| line == heading).expect("the page has the heading") + 1
}

#[test]
fn a_column_is_adopted_as_the_page_says() {
    let fixture = Fixture::with_broker();
    let keys = Keys::make(&fixture, "alias/adopted");
    fixture.connect_as("clinic", &[]);
    let mut owner = fixture.connect();
    owner.run(
        "CREATE TABLE patient (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text, diagnosis text);
         INSERT INTO patient (name, diagnosis) SELECT 'name ' || i, 'diagnosis ' || i % 50 FROM generate_series(1, 3000) AS i;
         CREATE STATISTICS patient_diagnosis (mcv) ON name, diagnosis FROM patient;
         ANALYZE patient;
         GRANT SELECT, INSERT, UPDATE, DELETE ON patient TO clinic",
    );
    let statements = Statements {
        insert: "INSERT INTO patient (name, diagnosis) VALUES ($1, $2) RETURNING id",
        update: "UPDATE patient SET diagnosis = $2 WHERE id = $1",
        read: "SELECT diagnosis FROM patient WHERE id = $1",
    };
    let back = line_of("ADOPTION.md", "## And back");
    run_page(&fixture, &keys, "ADOPTION.md", statements, back);
    assert_eq!(
        owner.one::<i64>("SELECT count(*) FROM patient WHERE id <= 3000 AND diagnosis = 'diagnosis ' || id % 50", &[]),
        3000
    );
}

#[test]
fn values_are_rotated_as_the_page_says() {
    let fixture = Fixture::with_broker();
    let keys = Keys::make(&fixture, "alias/rotated");
    fixture.connect_as("clinic", &["envelope_encrypt", "envelope_decrypt"]);
    let mut owner = fixture.connect();
    owner.run(&keys.in_place(
        "CREATE TABLE patient (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text, diagnosis bytea);
         INSERT INTO patient (id, name, diagnosis)
             SELECT i, 'name', env_encrypt('diagnosis ' || i, 'alias/patients', '{}', 'patient.diagnosis:' || i)
             FROM (SELECT nextval('patient_id_seq') AS i FROM generate_series(1, 3000)) AS s;
         CREATE TABLE visit (day date, note bytea) PARTITION BY RANGE (day);
         CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
         CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
         INSERT INTO visit SELECT date '2025-01-01' + i, env_encrypt('note', 'alias/patients') FROM generate_series(0, 700) AS i;
         GRANT SELECT, INSERT, UPDATE, DELETE ON patient TO clinic;
         GRANT USAGE ON SEQUENCE patient_id_seq TO clinic",
    ));
    let insert = "INSERT INTO patient (id, name, diagnosis)
        SELECT n, $1, env_encrypt($2, 'alias/patients', '{}', 'patient.diagnosis:' || n) FROM nextval('patient_id_seq') AS n RETURNING id";
    let update = "UPDATE patient SET diagnosis = env_encrypt($2, 'alias/patients', '{}', 'patient.diagnosis:' || id) WHERE id = $1";
    let statements = Statements {
        insert: &keys.in_place(insert),
        update: &keys.in_place(update),
        read: "SELECT env_decrypt(diagnosis, 'patient.diagnosis:' || id) FROM patient WHERE id = $1",
    };
    run_page(&fixture, &keys, "ROTATION.md", statements, usize::MAX);
    let states: Vec<String> = owner.column("SELECT DISTINCT state FROM env_rotation");
    assert_eq!(states, ["done"]);
    let usage = "SELECT state FROM env_key_usage($1) LIMIT 1";
    assert_eq!(owner.one::<String>(usage, &[&keys.old.arn]), "not in use");
}

#[test]
fn writers_who_name_an_alias_do_not_keep_a_run_from_its_end() {
    // Each session has data keys of its own here.
    let fixture = Fixture::kms();
    let keys = Keys::make(&fixture, "alias/written");
    let mut owner = fixture.connect();
    owner.run(
        "CREATE TABLE patient (id int PRIMARY KEY, diagnosis bytea);
         INSERT INTO patient SELECT i, env_encrypt('diagnosis', 'alias/written') FROM generate_series(1, 500) AS i",
    );
    let stop = AtomicBool::new(false);
    let write = |mut client: Client| {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            client.run(&format!(
                "UPDATE patient SET diagnosis = env_encrypt('diagnosis', 'alias/written') WHERE id = {}",
                count % 500 + 1
            ));
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2).map(|_| scope.spawn(|| write(fixture.connect()))).collect();
        wait_until("they write", || {
            owner.one::<i64>("SELECT count(DISTINCT env_dek_id(diagnosis)) FROM patient", &[]) >= 3
        });
        Emulator::shared().update_alias("alias/written", &keys.new);
        for method in ["rewrap", "reencrypt"] {
            let call = format!("CALL env_rotate('patient', 'diagnosis', '{}', '{method}')", keys.new.arn);
            owner.run(&call);
            let last = "SELECT state FROM env_rotation ORDER BY run_id DESC LIMIT 1";
            assert_eq!(owner.one::<String>(last, &[]), "done", "{method}");
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("no writer fails"));
    });
    let under =
        "SELECT count(*) FROM patient WHERE env_key_id(diagnosis) = $1 AND env_decrypt(diagnosis) = 'diagnosis'";
    assert_eq!(owner.one::<i64>(under, &[&keys.new.arn]), 500);
}
