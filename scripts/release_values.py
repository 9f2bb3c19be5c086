"""Prints values of the installed release, as JSON: scripts/with-kms.sh python3 scripts/release_values.py >tests/server/releases/N.json

Each must open in every later release. Local values come with their key file, and with index keys and the tokens that these make. Values
under KMS come with the data key that KMS unwraps, so that a test can answer in its place.
"""

import base64
import json
import os
import subprocess
import urllib.request
from pathlib import Path

KMS = "alias/patients"


def sql(statement):
    done = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.rstrip("\n").splitlines()[-1] if done.stdout.strip() else ""


def value(name, expression, opens, aad=None, context="{}"):
    stored = sql(f"SELECT encode({expression}, 'hex')")
    return {"name": name, "value": stored, "opens": opens, "aad": aad, "context": json.loads(context)}


def sealed(prefix, key):
    context = '{"table": "t", "tenant": "7"}'
    return [
        value(f"{prefix} text", f"env_encrypt('a text'::text, '{key}')", {"text": "a text"}),
        value(f"{prefix} empty text", f"env_encrypt(''::text, '{key}')", {"text": ""}),
        value(f"{prefix} unicode", f"env_encrypt('\u00e4\u20ac\U0001f511'::text, '{key}')", {"text": "\u00e4\u20ac\U0001f511"}),
        value(f"{prefix} bytea", f"env_encrypt('\\x00ff10'::bytea, '{key}')", {"bytea": "00ff10"}),
        value(f"{prefix} empty bytea", f"env_encrypt(''::bytea, '{key}')", {"bytea": ""}),
        value(f"{prefix} jsonb", f"env_encrypt('{{\"a\": [1, null]}}'::jsonb, '{key}')", {"jsonb": {"a": [1, None]}}),
        value(f"{prefix} aad", f"env_encrypt('bound'::text, '{key}', '{{}}', 'row 1')", {"text": "bound"}, aad="row 1"),
        value(f"{prefix} context", f"env_encrypt('in a context'::text, '{key}', '{context}')", {"text": "in a context"}, context=context),
        value(f"{prefix} long text", f"env_encrypt(repeat('long ', 200), '{key}')", {"text": "long " * 200}),
    ]


def index_keys():
    """The wrapped index keys of the local provider, and tokens of each kind."""
    sql("SELECT env_create_index_key('person', 'local:other'), env_rotate_index_key('person')")
    rows = sql("SELECT json_agg(json_build_object('name', name, 'version', version, 'stub', encode(stub, 'hex'))) FROM envelope_internal.index_key")
    expressions = [
        *(f"env_blind_index({value}, 'person', version => {version})" for version in (1, 2)
          for value in ("'a text'::text", "''::text", "42::bigint", "date '2026-11-26'", "'\\x00ff'::bytea")),
        "env_blind_index('a text'::text, 'person', bits => 12, version => 1)",
        "env_prefix_tokens('a text', 'person', '{3,5}', version => 1)",
        "env_bucket_token(42::bigint, 'person', 10, version => 1)",
        "env_bucket_token(date '2026-11-26', 'person', 7, version => 1)",
    ]
    return {"index_keys": json.loads(rows), "tokens": [{"expression": e, "token": sql(f"SELECT {e}")} for e in expressions]}


def unwrap(wrapped, context):
    body = {"CiphertextBlob": wrapped, "EncryptionContext": {"envelope_pg": "v1", **context}}
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "TrentService.Decrypt",
        "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=0",
    }
    request = urllib.request.Request(sql("SHOW envelope_pg.kms_endpoint_url"), json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))


def main():
    sql("CREATE EXTENSION envelope_pg" + (f" VERSION '{os.environ['RELEASE']}'" if "RELEASE" in os.environ else ""))
    sql("SELECT env_local_create_key('dev')")
    local = sealed("local", "local:dev")
    sql("SELECT env_local_rotate_key('dev')")
    local += [value("local, second version", "env_encrypt('later'::text, 'local:dev')", {"text": "later"})]
    sql("SELECT env_local_create_key('other')")
    local += [
        value("local, rewrapped", f"env_rewrap('\\x{local[0]['value']}'::bytea, 'local:other')", {"text": "a text"}),
        value("local, reencrypted", f"env_reencrypt('\\x{local[0]['value']}'::bytea, 'local:other')", {"text": "a text"}),
    ]
    kms = sealed("kms", KMS)
    for each in kms:
        inspected = f"env_inspect('\\x{each['value']}'::bytea)"
        wrapped = base64.b64encode(bytes.fromhex(sql(f"SELECT encode(wrapped_dek, 'hex') FROM {inspected}"))).decode()
        answer = unwrap(wrapped, each["context"])
        assert len(base64.b64decode(answer["Plaintext"])) == 32
        each.update(wrapped=wrapped, dek=answer["Plaintext"], key_id=answer["KeyId"])
    searched = index_keys()
    keyring = Path(sql("SHOW envelope_pg.local_keyring")).read_text()
    version = sql("SELECT extversion FROM pg_extension WHERE extname = 'envelope_pg'")
    print(json.dumps({"release": version, "keyring": json.loads(keyring), "local": local, "kms": kms, **searched}, indent=1))


main()
