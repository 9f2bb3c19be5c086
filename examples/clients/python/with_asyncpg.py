"""asyncpg: prepared statements, binary parameters. Behind PgBouncer in transaction mode: statement_cache_size=0."""

import asyncio
import json
import os

import asyncpg

INSERT = """INSERT INTO patient VALUES ($1, env_encrypt($2, 'alias/patients', '{}', 'patient.diagnosis:' || $1::int),
    env_encrypt_jsonb($3, 'alias/patients'), env_encrypt_bytea($4, 'alias/patients'))"""
SELECT = """SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record), env_decrypt_bytea(photo)
    FROM patient ORDER BY id"""


async def main():
    connection = await asyncpg.connect(statement_cache_size=0 if os.environ.get("PGBOUNCER") else 100)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    rows = [(1, "asthma", {"since": 2019}, b"\xff\xd8"), (2, "", None, b""), (3, None, {"a": [1, None]}, None)]
    await connection.executemany(INSERT, rows)
    assert [tuple(row) for row in await connection.fetch(SELECT)] == rows

    await connection.execute("INSERT INTO person (name, ssn) VALUES ($1, $2)", "Ada", "078-05-1120")
    assert tuple(await connection.fetchrow("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person")) == (None, "078-05-1120")
    # Binary COPY goes through the trigger, too.
    await connection.copy_records_to_table("person", records=[("Grace", "219-09-9999")], columns=["name", "ssn"])
    assert await connection.fetchval("SELECT count(env_decrypt(ssn_enc, 'person.ssn:' || id)) FROM person") == 2
    await connection.close()


asyncio.run(main())
