// node-postgres: parameters without a type, so say what they are with env_encrypt_jsonb and env_encrypt_bytea.
import assert from 'node:assert/strict';
import pg from 'pg';
import { rows } from './rows.js';

const client = new pg.Client();
await client.connect();
for (const { id, diagnosis, record, photo } of rows) {
  await client.query(
    `INSERT INTO patient VALUES ($1, env_encrypt($2, 'alias/patients', '{}', 'patient.diagnosis:' || $1::int),
      env_encrypt_jsonb($3, 'alias/patients'), env_encrypt_bytea($4, 'alias/patients'))`,
    [id, diagnosis, record, photo],
  );
}
const read = await client.query(
  `SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id) AS diagnosis, env_decrypt_jsonb(record) AS record,
    env_decrypt_bytea(photo) AS photo FROM patient ORDER BY id`,
);
assert.deepEqual(read.rows, rows);

// A batch in one statement.
await client.query('INSERT INTO person (name, ssn) SELECT * FROM unnest($1::text[], $2::text[])', [
  ['Ada', 'Grace'],
  ['078-05-1120', '219-09-9999'],
]);
const persons = await client.query("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) AS clear FROM person ORDER BY id");
assert.deepEqual(persons.rows, [
  { ssn: null, clear: '078-05-1120' },
  { ssn: null, clear: '219-09-9999' },
]);
await client.end();
