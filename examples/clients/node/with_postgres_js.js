// postgres.js: it asks the server for the types of parameters. Behind PgBouncer in transaction mode: prepare: false.
import assert from 'node:assert/strict';
import postgres from 'postgres';
import { rows } from './rows.js';

const sql = postgres({ host: process.env.PGHOST, prepare: !process.env.PGBOUNCER, onnotice: () => {} });
await sql.begin(async (sql) => {
  for (const { id, diagnosis, record, photo } of rows) {
    await sql`INSERT INTO patient VALUES (${id}, env_encrypt(${diagnosis}, 'alias/patients', '{}', 'patient.diagnosis:' || ${id}::int),
      env_encrypt_jsonb(${record === null ? null : sql.json(record)}, 'alias/patients'), env_encrypt_bytea(${photo}, 'alias/patients'))`;
  }
});
const read = await sql`SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id) AS diagnosis,
  env_decrypt_jsonb(record) AS record, env_decrypt_bytea(photo) AS photo FROM patient ORDER BY id`;
assert.deepEqual([...read].map((row) => ({ ...row })), rows);

await sql`INSERT INTO person ${sql([{ name: 'Ada', ssn: '078-05-1120' }, { name: 'Grace', ssn: '219-09-9999' }])}`;
const [{ count }] = await sql`SELECT count(env_decrypt(ssn_enc, 'person.ssn:' || id))::int AS count FROM person WHERE ssn IS NULL`;
assert.equal(count, 2);
await sql.end();
