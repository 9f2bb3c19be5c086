// Knex: raw expressions in insert and select.
import assert from 'node:assert/strict';
import knex from 'knex';

const db = knex({ client: 'pg', connection: { host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE, port: Number(process.env.PGPORT) } });
const encrypt = (value) => db.raw("env_encrypt(?::text, 'alias/patients')", [value]);

await db('patient').insert([{ id: 1, diagnosis: encrypt('asthma') }, { id: 2, diagnosis: encrypt('') }, { id: 3, diagnosis: encrypt(null) }]);
const read = await db('patient').select('id', db.raw('env_decrypt(diagnosis) AS diagnosis')).orderBy('id');
assert.deepEqual(read, [{ id: 1, diagnosis: 'asthma' }, { id: 2, diagnosis: '' }, { id: 3, diagnosis: null }]);

await db('person').insert({ name: 'Ada', ssn: '078-05-1120' });
await db('person').where({ name: 'Ada' }).update({ name: 'Ada Lovelace' });
assert.deepEqual(await db('person').select('ssn', db.raw('env_decrypt(ssn_enc) AS clear')), [{ ssn: null, clear: '078-05-1120' }]);
await db.destroy();
