//! Bytes: of values by type and size, of TOAST strategies, and what compression makes of them in dumps and WAL.

use testkit::{Fixture, Session as _};

use crate::contender;
use crate::measure::{Case, interleaved};
use crate::plan::{Plan, size_name};
use crate::session::Session;
use crate::table::{Table, count, ratio, time};

pub fn measure(fixture: &Fixture, plan: &Plan) -> String {
    println!("storage");
    let mut session = Session::start(fixture);
    session.client.run("CREATE SCHEMA bench");
    let text = values(fixture, &mut session)
        + &padding(fixture, &mut session)
        + &toast(fixture, plan)
        + &dumps(fixture, &mut session, plan)
        + &wal(fixture, &mut session, plan);
    session.client.run("DROP SCHEMA bench CASCADE");
    text
}

/// Bytes of a value around its plaintext.
fn values(fixture: &Fixture, session: &mut Session) -> String {
    session.client.run("SELECT env_local_create_key('bench')");
    let key = &fixture.key_id;
    let mut table = Table::new(&[
        "plaintext",
        "passthrough",
        "envelope_pg, KMS",
        "envelope_pg, local key",
        "CBC",
        "CBC + HMAC",
        "pgp_sym",
    ]);
    for bytes in [0, 1, 16, 100, 1 << 10, 8 << 10] {
        let plain = format!("repeat('x', {bytes})");
        let contenders = contender::all(key);
        let measured = |session: &mut Session, slug: &str| -> i32 {
            let contender = contenders.iter().find(|contender| contender.slug == slug).expect("a known contender");
            let source = contender.source(&format!("(SELECT {plain} AS plain) AS one"), 1, 1);
            session.client.one(&format!("SELECT octet_length({}) FROM {source}", contender.encrypt), &[])
        };
        let local: i32 = session.client.one(&format!("SELECT octet_length(env_encrypt({plain}, 'local:bench'))"), &[]);
        let [pass, kms, cbc, hmac, pgp] =
            ["passthrough", "envelope", "cbc", "cbc_hmac", "pgp_s2k0"].map(|slug| measured(session, slug));
        table.row(&[
            size_name(bytes),
            pass.to_string(),
            kms.to_string(),
            local.to_string(),
            cbc.to_string(),
            hmac.to_string(),
            pgp.to_string(),
        ]);
    }
    let types = format!(
        "SELECT format('text %s, bytea %s, jsonb %s', octet_length(env_encrypt('{{\"a\": 1}}'::text, '{key}')),
             octet_length(env_encrypt('{{\"a\": 1}}'::bytea, '{key}')), octet_length(env_encrypt('{{\"a\": 1}}'::jsonb, '{key}')))"
    );
    let types: String = session.client.one(&types, &[]);
    let wrapped: i32 = session
        .client
        .one(&format!("SELECT octet_length(wrapped_dek) FROM env_inspect(env_encrypt('x', '{key}'))"), &[]);
    format!(
        "## Storage\n\nBytes of a value (`octet_length`), by bytes of its plaintext. The type makes no difference: of `{{\"a\": 1}}` \
         {types}. The emulator's wrapped data key has {wrapped} bytes; AWS's has 184 today, so a value there is {} bytes larger than \
         in the second column.\n\n{}",
        184 - wrapped,
        table.finish()
    )
}

/// What padding (80 00*, docs/FORMAT.md) would hide of the lengths of short texts, and what that would cost.
fn padding(fixture: &Fixture, session: &mut Session) -> String {
    let mut table = Table::new(&["padded to a multiple of", "lengths that show", "bytes of a value", "more"]);
    let mut unpadded = None;
    for block in [1, 16, 32, 64] {
        let padded = if block == 1 { "n".to_owned() } else { format!("(n / {block} + 1) * {block}") };
        let row = session.client.query_one(
            &format!(
                "SELECT count(DISTINCT octet_length(value)), avg(octet_length(value))::float8
                 FROM (SELECT env_encrypt(repeat('x', {padded}), $1) AS value FROM generate_series(1, 64) AS n) AS encrypted"
            ),
            &[&fixture.key_id],
        );
        let row = row.expect("it is measured");
        let (lengths, bytes): (i64, f64) = (row.get(0), row.get(1));
        let more = bytes - *unpadded.get_or_insert(bytes);
        let name = if block == 1 { "not padded".to_owned() } else { format!("{block} B") };
        let percent = more / (bytes - more) * 100.0;
        table.row(&[name, lengths.to_string(), format!("{bytes:.1}"), format!("{more:.1} ({percent:.0} %)")]);
    }
    format!(
        "### Padding\n\nA value shows how long its plaintext is. The value format has a flag for padding, and every reader heeds it, but no \
         function pads yet. For texts of 1 to 64 bytes, each length as often, it would be this much:\n\n{}",
        table.finish()
    )
}

/// Size and time of the storage strategies of an encrypted column.
fn toast(fixture: &Fixture, plan: &Plan) -> String {
    let mut text = String::from(
        "### Which STORAGE for an encrypted column\n\nCiphertext does not compress. `EXTENDED`, PostgreSQL's default for `bytea`, \
         tries it for each value above 2 kB; `EXTERNAL` does not try; `MAIN` tries, and keeps in the row what fits into a page. \
         Size is the table with its TOAST table and indexes; times are CPU per row.\n\n",
    );
    for bytes in [1 << 10, 4 << 10, 16 << 10] {
        let rows = plan.storage_rows * 1024 / bytes;
        let session = std::cell::RefCell::new(Session::start(fixture));
        const STRATEGIES: [&str; 3] = ["EXTENDED", "EXTERNAL", "MAIN"];
        session.borrow_mut().client.run(&format!(
            "CREATE TEMP TABLE plain (plain text); ALTER TABLE plain ALTER plain SET STORAGE EXTERNAL;
             INSERT INTO plain SELECT left(string_agg(md5(row || '/' || block), ''), {bytes})
                 FROM generate_series(1, {rows}) AS row, generate_series(1, {}) AS block GROUP BY row",
            bytes.div_ceil(32)
        ));
        for strategy in STRATEGIES {
            session.borrow_mut().client.run(&format!(
                "CREATE TABLE bench.{strategy} (value bytea); ALTER TABLE bench.{strategy} ALTER value SET STORAGE {strategy}"
            ));
        }
        let writing = STRATEGIES.map(|strategy| {
            let (session, key) = (&session, &fixture.key_id);
            let run = Box::new(move || {
                let mut session = session.borrow_mut();
                session.client.run(&format!("TRUNCATE bench.{strategy}"));
                session.cost_ns(&format!("INSERT INTO bench.{strategy} SELECT env_encrypt(plain, '{key}') FROM plain"))
                    as f64
            });
            Case { rows, run }
        });
        let writing = interleaved(plan.repetitions.min(5), writing.into());
        for strategy in STRATEGIES {
            session.borrow_mut().vacuum(&format!("bench.{strategy}"));
        }
        let reading = STRATEGIES.map(|strategy| {
            let session = &session;
            let query = format!("SELECT count(env_decrypt(value)) FROM bench.{strategy}");
            Case { rows, run: Box::new(move || session.borrow_mut().count_ns(&query, rows) as f64) }
        });
        let reading = interleaved(plan.repetitions.min(5), reading.into());
        let heads = STRATEGIES.map(|strategy| {
            let session = &session;
            let query = format!("SELECT count(env_key_id(value)) FROM bench.{strategy}");
            Case { rows, run: Box::new(move || session.borrow_mut().count_ns(&query, rows) as f64) }
        });
        let heads = interleaved(plan.repetitions.min(5), heads.into());
        let mut table = Table::new(&[&size_name(bytes), "bytes per row", "insert", "env_decrypt", "env_key_id"]);
        for (index, strategy) in STRATEGIES.iter().enumerate() {
            let size: i64 =
                session.borrow_mut().client.one(&format!("SELECT pg_total_relation_size('bench.{strategy}')"), &[]);
            let per_row = size as f64 / rows as f64;
            table.row(&[
                (*strategy).to_owned(),
                count(per_row),
                time(writing[index]),
                time(reading[index]),
                time(heads[index]),
            ]);
            session.borrow_mut().client.run(&format!("DROP TABLE bench.{strategy}"));
        }
        text += &table.finish();
    }
    text
}

/// What pg_dump's compression makes of headers that repeat.
fn dumps(fixture: &Fixture, session: &mut Session, plan: &Plan) -> String {
    let rows = plan.storage_rows;
    let mut table = Table::new(&["16 B of hex", "in the table", "dump", "dump -Z 6", "of plain text"]);
    let mut plain_bytes = None;
    for (name, expression) in [
        ("plain text", "left(md5(i::text), 16)".to_owned()),
        ("envelope_pg, one data key", format!("env_encrypt(left(md5(i::text), 16), '{}')", fixture.key_id)),
        (
            "pgcrypto pgp_sym, s2k-mode=0",
            "pgp_sym_encrypt(left(md5(i::text), 16), 'a password', 's2k-mode=0')".to_owned(),
        ),
    ] {
        session.client.run(&format!(
            "CREATE TABLE bench.dumped AS SELECT {expression} AS value FROM generate_series(1, {rows}) AS i"
        ));
        let table_bytes: i64 = session.client.one("SELECT pg_table_size('bench.dumped')", &[]);
        let dump = |level: &str| {
            let output =
                fixture.cluster.run("pg_dump", &["-t", "bench.dumped", "--data-only", "-Z", level, "postgres"]);
            output.stdout.len() as f64 / rows as f64
        };
        let (raw, compressed) = (dump("0"), dump("6"));
        let plain = *plain_bytes.get_or_insert(compressed);
        let cell = |bytes: f64| format!("{bytes:.0}");
        table.row(&[
            name.to_owned(),
            cell(table_bytes as f64 / rows as f64),
            cell(raw),
            cell(compressed),
            ratio(compressed / plain),
        ]);
        session.client.run("DROP TABLE bench.dumped");
    }
    format!(
        "### Dumps\n\nBytes per row of {} rows under one data key. The header and the wrapped data key repeat from value to value, so \
         compression takes most of them away; nonce, ciphertext and tag are random.\n\n{}",
        count(rows as f64),
        table.finish()
    )
}

/// What wal_compression makes of full-page images.
fn wal(fixture: &Fixture, session: &mut Session, plan: &Plan) -> String {
    let rows = plan.storage_rows;
    let _full_pages = fixture.cluster.set_for_now("full_page_writes", "on");
    let mut table = Table::new(&["wal_compression", "plain text", "encrypted", ""]);
    for method in ["off", "pglz", "lz4", "zstd"] {
        // Not every server is built with every method.
        if session.client.batch_execute(&format!("SET wal_compression = {method}")).is_err() {
            continue;
        }
        let plain = "convert_to(left(md5(i::text), 16), 'UTF8')".to_owned();
        let sealed = format!("env_encrypt(left(md5(i::text), 16), '{}')", fixture.key_id);
        let [plain, sealed] = [plain, sealed].map(|expression| {
            // Room in each page for one more row.
            session.client.run(&format!(
                "CREATE TABLE bench.pages (value bytea) WITH (fillfactor = 90);
                 INSERT INTO bench.pages SELECT {expression} FROM generate_series(1, {rows}) AS i"
            ));
            session.client.run("CHECKPOINT");
            let before = wal_position(session);
            session.client.run("UPDATE bench.pages SET value = value WHERE ctid::text LIKE '%,1)'");
            let written = wal_position(session) - before;
            let pages: i64 = session.client.one("SELECT pg_relation_size('bench.pages') / 8192", &[]);
            session.client.run("DROP TABLE bench.pages");
            written as f64 / pages as f64
        });
        table.row(&[method.to_owned(), format!("{plain:.0}"), format!("{sealed:.0}"), ratio(sealed / plain)]);
    }
    format!(
        "### WAL\n\nBytes of WAL per page, when one row of each page is updated after a checkpoint, so that the page is written \
         as a whole. Rows as above. New rows are in the WAL as they are in the table: `wal_compression` is about pages \
         only.\n\n{}",
        table.finish()
    )
}

fn wal_position(session: &mut Session) -> i64 {
    session.client.one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[])
}
