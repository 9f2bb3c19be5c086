"""psycopg2: it puts values into the statement as literals, so that a server that logs statements logs plaintext."""

import psycopg2
import psycopg2.errors
from psycopg2.extras import Json, execute_batch

INSERT = """INSERT INTO patient VALUES (%(id)s, env_encrypt(%(diagnosis)s::text, 'alias/patients', '{}', 'patient.diagnosis:' || %(id)s),
    env_encrypt_jsonb(%(record)s, 'alias/patients'), env_encrypt_bytea(%(photo)s, 'alias/patients'))"""
SELECT = """SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record), env_decrypt_bytea(photo)
    FROM patient ORDER BY id"""

connection = psycopg2.connect("")
with connection, connection.cursor() as cursor:
    rows = [(1, "asthma", {"since": 2019}, b"\xff\xd8"), (2, "", None, b""), (3, None, {"a": [1, None]}, None)]
    # Json is a literal without a type: env_encrypt_jsonb takes it for what it is.
    parameters = [{"id": i, "diagnosis": d, "record": None if r is None else Json(r), "photo": p} for i, d, r, p in rows]
    execute_batch(cursor, INSERT, parameters)
    cursor.execute(SELECT)
    assert [(i, d, r, None if p is None else bytes(p)) for i, d, r, p in cursor.fetchall()] == rows

    cursor.execute("INSERT INTO person (name, ssn) VALUES (%s, %s)", ("Ada", "078-05-1120"))
    cursor.execute("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person")
    assert cursor.fetchall() == [(None, "078-05-1120")]

try:
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO misspelt VALUES (1, env_encrypt(%s::text, 'alias/patients'))", ("asthma",))
    raise AssertionError("there is no such table")
except psycopg2.errors.UndefinedTable as error:
    # Its text quotes the statement with its literals: log these.
    assert "asthma" in str(error) and "asthma" not in f"{error.pgcode} {error.diag.message_primary}"
