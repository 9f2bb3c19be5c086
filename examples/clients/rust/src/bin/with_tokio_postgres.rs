//! tokio-postgres: it prepares statements and so knows the types of parameters.

use std::env;

use serde_json::{Value, json};
use tokio_postgres::{Config, NoTls};

type Row = (i32, Option<&'static str>, Option<Value>, Option<&'static [u8]>);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::new();
    config.host(env::var("PGHOST")?).user(env::var("PGUSER")?).dbname(env::var("PGDATABASE")?).port(env::var("PGPORT")?.parse()?);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let rows: [Row; 3] = [
        (1, Some("asthma"), Some(json!({"since": 2019})), Some(&[0xff, 0xd8])),
        (2, Some(""), None, Some(&[])),
        (3, None, Some(json!({"a": [1, null]})), None),
    ];
    let insert = client
        .prepare(
            "INSERT INTO patient VALUES ($1, env_encrypt($2::text, 'alias/patients', '{}', 'patient.diagnosis:' || $1::int),
                env_encrypt_jsonb($3, 'alias/patients'), env_encrypt_bytea($4, 'alias/patients'))",
        )
        .await?;
    for (id, diagnosis, record, photo) in &rows {
        client.execute(&insert, &[id, diagnosis, record, photo]).await?;
    }
    let select = "SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record), env_decrypt_bytea(photo)
        FROM patient ORDER BY id";
    for (read, written) in client.query(select, &[]).await?.iter().zip(&rows) {
        let read: (i32, Option<&str>, Option<Value>, Option<&[u8]>) = (read.get(0), read.get(1), read.get(2), read.get(3));
        assert!(read == *written, "a value read back is not what was written");
    }
    client.execute("INSERT INTO person (name, ssn) VALUES ($1, $2)", &[&"Ada", &"078-05-1120"]).await?;
    let person = client.query_one("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person", &[]).await?;
    assert!(person.get::<_, Option<&str>>(0).is_none() && person.get::<_, &str>(1) == "078-05-1120");
    Ok(())
}
