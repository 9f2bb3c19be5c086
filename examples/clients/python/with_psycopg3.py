"""psycopg 3: parameters go to the server apart from the statement. The connection comes from PGHOST and the like."""

import psycopg
from psycopg.types.json import Jsonb

INSERT = """INSERT INTO patient VALUES (%s, env_encrypt(%s, 'alias/patients', '{}', %s),
    env_encrypt_jsonb(%s, 'alias/patients'), env_encrypt_bytea(%s, 'alias/patients'))"""
SELECT = """SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record), env_decrypt_bytea(photo)
    FROM patient ORDER BY id"""


def row(number, diagnosis, record, photo):
    # The aad binds the diagnosis to its row.
    return number, diagnosis, f"patient.diagnosis:{number}", None if record is None else Jsonb(record), photo


with psycopg.connect() as connection:
    rows = [(1, "asthma", {"since": 2019}, b"\xff\xd8"), (2, "", None, b""), (3, None, {"a": [1, None]}, None)]
    # A batch, with NULLs, empty values, JSON and bytes.
    connection.cursor().executemany(INSERT, [row(*values) for values in rows])
    assert connection.execute(SELECT).fetchall() == rows

    connection.execute("INSERT INTO person (name, ssn) VALUES (%s, %s)", ("Ada", "078-05-1120"))
    assert connection.execute("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person").fetchall() == [(None, "078-05-1120")]

    # COPY goes through the trigger, too.
    with connection.cursor().copy("COPY person (name, ssn) FROM STDIN") as copy:
        copy.write_row(("Grace", "219-09-9999"))
    assert connection.execute("SELECT count(env_decrypt(ssn_enc, 'person.ssn:' || id)) FROM person").fetchone() == (2,)
