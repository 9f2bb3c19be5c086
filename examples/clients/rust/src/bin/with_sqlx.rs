//! sqlx: bound parameters have the types of their Rust values.

use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Postgres, QueryBuilder};

type Row = (i32, Option<String>, Option<Value>, Option<Vec<u8>>);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // PGHOST and the like.
    let pool = PgPoolOptions::new().max_connections(2).connect_with(Default::default()).await?;
    let rows: [Row; 3] = [
        (1, Some("asthma".into()), Some(json!({"since": 2019})), Some(vec![0xff, 0xd8])),
        (2, Some(String::new()), None, Some(vec![])),
        (3, None, Some(json!({"a": [1, null]})), None),
    ];
    // A batch in one statement.
    let mut insert = QueryBuilder::<Postgres>::new("INSERT INTO patient ");
    insert.push_values(&rows, |mut values, (id, diagnosis, record, photo)| {
        values.push_bind(id).push("env_encrypt(").push_bind_unseparated(diagnosis);
        values.push_unseparated(", 'alias/patients', '{}', ").push_bind_unseparated(format!("patient.diagnosis:{id}")).push_unseparated(")");
        values.push("env_encrypt(").push_bind_unseparated(record).push_unseparated(", 'alias/patients')");
        values.push("env_encrypt(").push_bind_unseparated(photo).push_unseparated(", 'alias/patients')");
    });
    insert.build().execute(&pool).await?;
    let read: Vec<Row> = sqlx::query_as(
        "SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record), env_decrypt_bytea(photo)
            FROM patient ORDER BY id",
    )
    .fetch_all(&pool)
    .await?;
    assert!(read == rows, "a value read back is not what was written");
    sqlx::query("INSERT INTO person (name, ssn) VALUES ($1, $2)").bind("Ada").bind("078-05-1120").execute(&pool).await?;
    let person: (Option<String>, String) =
        sqlx::query_as("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person").fetch_one(&pool).await?;
    assert!(person == (None, "078-05-1120".into()));
    Ok(())
}
