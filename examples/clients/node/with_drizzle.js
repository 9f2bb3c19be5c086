// Drizzle: a custom type whose values are SQL that encrypts; decrypted in the select.
import assert from 'node:assert/strict';
import { eq, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { bigint, customType, integer, pgTable, text } from 'drizzle-orm/pg-core';
import pg from 'pg';

const encryptedText = (keyId) =>
  customType({
    dataType: () => 'bytea',
    toDriver: (value) => sql`env_encrypt(${value}::text, ${keyId})`,
  });
const decrypt = (column) => sql`env_decrypt(${column})`.mapWith(String);

const patient = pgTable('patient', { id: integer().primaryKey(), diagnosis: encryptedText('alias/patients')() });
const person = pgTable('person', { id: bigint({ mode: 'number' }).primaryKey(), name: text(), ssn: text() });

const client = new pg.Client();
await client.connect();
const db = drizzle(client);
await db.insert(patient).values([{ id: 1, diagnosis: 'asthma' }, { id: 2, diagnosis: '' }, { id: 3, diagnosis: null }]);
await db.update(patient).set({ diagnosis: 'asthma, mild' }).where(eq(patient.id, 1));
const read = await db.select({ id: patient.id, diagnosis: decrypt(patient.diagnosis) }).from(patient).orderBy(patient.id);
assert.deepEqual(read, [{ id: 1, diagnosis: 'asthma, mild' }, { id: 2, diagnosis: '' }, { id: 3, diagnosis: null }]);

await db.insert(person).values({ id: 1, name: 'Ada', ssn: '078-05-1120' });
await db.update(person).set({ name: 'Ada Lovelace' }).where(eq(person.id, 1));
const [{ clear }] = await db.select({ clear: sql`env_decrypt(ssn_enc)` }).from(person);
assert.equal(clear, '078-05-1120');
await client.end();
