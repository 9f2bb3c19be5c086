//! Values that a broken disk has changed, so that not even PostgreSQL's header of them is true.

use std::fs;
use std::time::Duration;

use testkit::{Fixture, Session};

/// Of a compressed value PostgreSQL's header says how many bytes it has. If it says too much, and the head of the value asks for
/// them, there are none to be had.
#[test]
fn a_compressed_value_that_claims_more_bytes_than_it_has_is_an_error() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    // Magic number, version, suite, type, flags, commitment; and a context of 60,000 bytes, of which 3,000 are there.
    client.run(
        "CREATE TABLE damaged (value bytea COMPRESSION pglz);
         INSERT INTO damaged
             SELECT '\\xf64501010100'::bytea || decode(repeat('00', 32), 'hex') || '\\xea60'::bytea || decode(repeat('00', 3000), 'hex')",
    );
    let bytes = client.one::<i32>("SELECT octet_length(value) FROM damaged", &[]);
    let stored_bytes = client.one::<i32>("SELECT pg_column_size(value) FROM damaged", &[]);
    assert!(stored_bytes < bytes, "it is compressed");
    let file =
        fixture.cluster.data_directory().join(client.one::<String>("SELECT pg_relation_filepath('damaged')", &[]));
    client.run("CHECKPOINT");
    drop(client);
    fixture.cluster.stop_immediate();

    // varattrib_4b.va_compressed (postgres.h): its length in two bits less than 32, then how many bytes it has uncompressed.
    let header = [(stored_bytes as u32) << 2 | 2, bytes as u32].map(u32::to_le_bytes).concat();
    let mut page = fs::read(&file).expect("the table's file");
    let at = page.windows(header.len()).position(|window| window == header).expect("the value is in it");
    page[at + 4..at + 8].copy_from_slice(&70_000_u32.to_le_bytes());
    fs::write(&file, page).expect("the table's file");
    fixture.cluster.start_again();

    let mut client = fixture.connect();
    client.run(&format!("SET statement_timeout = {}", Duration::from_secs(20).as_millis()));
    // Checksums are the default from PostgreSQL 18 on.
    client.run("SET ignore_checksum_failure = on");
    assert!(!client.one::<bool>("SELECT env_is_envelope(value) FROM damaged", &[]));
    client.fail("SELECT env_key_id(value) FROM damaged", &[]).with("22P03");
    // It is read whole, which PostgreSQL itself refuses.
    client.fail("SELECT env_decrypt(value) FROM damaged", &[]).with("XX001");
}
