// Knex: raw expressions in insert and select. It sends no types, so each is named.
import assert from 'node:assert/strict';
import knex from 'knex';
import { rows } from './rows.js';

const { PGHOST: host, PGUSER: user, PGDATABASE: database, PGPORT: port } = process.env;
const db = knex({ client: 'pg', connection: { host, user, database, port: Number(port) } });
const encrypt = (value, aad) => db.raw("env_encrypt(?::text, 'alias/patients', '{}', ?)", [value, aad]);
const encryptJson = (value) => db.raw("env_encrypt_jsonb(?::jsonb, 'alias/patients')", [value === null ? null : JSON.stringify(value)]);
const encryptBytes = (value) => db.raw("env_encrypt_bytea(?::bytea, 'alias/patients')", [value]);

await db('patient').insert(
  rows.map(({ id, diagnosis, record, photo }) => ({
    id,
    diagnosis: encrypt(diagnosis, `patient.diagnosis:${id}`),
    record: encryptJson(record),
    photo: encryptBytes(photo),
  })),
);
const read = await db('patient')
  .select('id')
  .select(db.raw("env_decrypt(diagnosis, 'patient.diagnosis:' || id) AS diagnosis"))
  .select(db.raw('env_decrypt_jsonb(record) AS record, env_decrypt_bytea(photo) AS photo'))
  .orderBy('id');
assert.deepEqual(read, rows);
await assert.rejects(
  db('patient').insert({ id: 1, diagnosis: encrypt('asthma', 'patient.diagnosis:1') }),
  (error) => error.code === '23505' && !error.message.includes('asthma'),
);

// Through the trigger; an update of all columns leaves the value alone.
await db('person').insert({ name: 'Ada', ssn: '078-05-1120' });
const ada = await db('person').first();
await db('person').where({ id: ada.id }).update({ ...ada, name: 'Ada Lovelace' });
const clear = db.raw("env_decrypt(ssn_enc, 'person.ssn:' || id) AS clear");
assert.deepEqual(await db('person').select('name', 'ssn', clear), [{ name: 'Ada Lovelace', ssn: null, clear: '078-05-1120' }]);
await db.destroy();
