// Drizzle: a custom type whose values are SQL that encrypts; decrypted in the select.
import assert from 'node:assert/strict';
import { eq, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { bigint, customType, integer, pgTable, text } from 'drizzle-orm/pg-core';
import pg from 'pg';
import { rows } from './rows.js';

const bytea = customType({ dataType: () => 'bytea' });
const encrypted = (keyId, toSql) => customType({ dataType: () => 'bytea', toDriver: (value) => toSql(value, keyId) })();
const encryptedText = (keyId) => encrypted(keyId, (value, key) => sql`env_encrypt(${value}::text, ${key})`);
const encryptedJson = (keyId) => encrypted(keyId, (value, key) => sql`env_encrypt_jsonb(${JSON.stringify(value)}::jsonb, ${key})`);
const encryptedBytes = (keyId) => encrypted(keyId, (value, key) => sql`env_encrypt_bytea(${value}::bytea, ${key})`);

const patient = pgTable('patient', {
  id: integer().primaryKey(),
  diagnosis: encryptedText('alias/patients'),
  record: encryptedJson('alias/patients'),
  photo: encryptedBytes('alias/patients'),
});
const person = pgTable('person', { id: bigint({ mode: 'number' }).primaryKey(), name: text(), ssn: text(), ssn_enc: bytea() });

const client = new pg.Client();
await client.connect();
const db = drizzle(client);
await db.insert(patient).values(rows);
const read = await db
  .select({
    id: patient.id,
    diagnosis: sql`env_decrypt(${patient.diagnosis})`,
    record: sql`env_decrypt_jsonb(${patient.record})`,
    photo: sql`env_decrypt_bytea(${patient.photo})`,
  })
  .from(patient)
  .orderBy(patient.id);
assert.deepEqual(read, rows);
await db.update(patient).set({ diagnosis: 'asthma, mild' }).where(eq(patient.id, 1));
const [{ diagnosis }] = await db.select({ diagnosis: sql`env_decrypt(${patient.diagnosis})` }).from(patient).where(eq(patient.id, 1));
assert.equal(diagnosis, 'asthma, mild');

// The message of a DrizzleQueryError has the plaintext, its cause has not: log and show the cause.
await assert.rejects(
  db.insert(patient).values({ id: 1, diagnosis: 'asthma' }),
  ({ message, cause }) => message.includes('asthma') && cause.code === '23505' && !cause.message.includes('asthma'),
);

// Through the trigger; an update of all columns leaves the value alone.
await db.insert(person).values({ id: 1, name: 'Ada', ssn: '078-05-1120' });
const [ada] = await db.select().from(person);
await db.update(person).set({ ...ada, name: 'Ada Lovelace' }).where(eq(person.id, ada.id));
const persons = await db.select({ name: person.name, ssn: person.ssn, clear: sql`env_decrypt(ssn_enc, 'person.ssn:' || id)` }).from(person);
assert.deepEqual(persons, [{ name: 'Ada Lovelace', ssn: null, clear: '078-05-1120' }]);
await client.end();
