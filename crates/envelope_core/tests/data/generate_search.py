#!/usr/bin/env python3
"""Writes search.json: search tokens as docs/reader.py computes them, which has nothing of the extension.

    generate_search.py > search.json
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[4] / "docs"))
sys.dont_write_bytecode = True
import reader  # noqa: E402

KEY, NAME = bytes(range(32)), "person.ssn"
EQUALITY = [
    ("text", "078-05-1120"), ("text", ""), ("text", "Zoë Straße 北京"), ("bytea", ""), ("bytea", "00ff10"),
    ("bigint", "0"), ("bigint", "-1"), ("bigint", "9223372036854775807"), ("bigint", "-9223372036854775808"),
    ("numeric", "1.0"), ("numeric", "1.00"), ("numeric", "-0.5"), ("numeric", "0.000"), ("numeric", "12345678901234567890123456789.125"),
    ("numeric", "NaN"), ("numeric", "-Infinity"), ("date", "2000-01-01"), ("date", "1969-07-20"), ("date", "infinity"),
    ("timestamptz", "2026-11-26T10:00:00.000001+00:00"), ("timestamptz", "1999-12-31T23:59:59+01:00"), ("timestamptz", "-infinity"),
    ("uuid", "715c0818-5825-4245-a755-138a6d9a11e6"),
]
BITS = [1, 5, 8, 9, 12, 16, 31, 32]
PREFIXES = [("Müller", [3, 4, 5, 6, 7, 8]), ("Mü", [3]), ("北京市海淀区", [3, 5]), ("", [3]), ("aaaaaaaaa", [3, 8])]
BUCKETS = [
    ("bigint", "0", "0", "10"), ("bigint", "-1", "0", "10"), ("bigint", "1999", "1000", "500"), ("numeric", "-0.01", "0", "0.1"),
    ("numeric", "99.999", "0.5", "33"), ("date", "1999-12-31", "2000-01-01", "30"), ("date", "2026-11-26", "1970-01-01", "365"),
    ("timestamptz", "2026-11-26T10:00:00+00:00", "1970-01-01T00:00:00+00:00", "3600000000"),
]
NORMALIZED = [
    (["lower"], "ΟΔΟΣ İ ÄÖÜ"), (["nfkc"], "\ufb01 \uff11\u212be\u0301"), (["trim"], "\u00a0 a b\u2003\n\u001c"), (["digits"], "+49 (30) 123-4\u0661"),
    (["nfkc", "digits"], "\uff11\uff12"), (["email"], "  Ada.Lovelace@Example.ORG\t"), (["nfkc", "lower", "trim"], " \uff21\u0130 "), ([], " X "),
]

vectors = {"index_key": KEY.hex(), "name": NAME, "sub_keys": [], "equality": [], "bits": [], "prefixes": [], "buckets": [], "normalized": []}
for version in 1, 2, 256, 65537:
    for purpose in 1, 2, 3:
        vectors["sub_keys"].append({"version": version, "kind": purpose, "sub_key": reader.sub_key(KEY, purpose, NAME, version).hex()})
    for kind, value in EQUALITY:
        vectors["equality"].append({"version": version, "type": kind, "value": value, "encoding": reader.encoding(kind, value).hex(),
                                    "token": reader.equality_token(KEY, NAME, version, kind, value).hex()})
for bits in BITS:
    vectors["bits"].append({"bits": bits, "value": "Ada", "token": reader.equality_token(KEY, NAME, 1, "text", "Ada", bits).hex()})
for text, lengths in PREFIXES:
    vectors["prefixes"].append({"value": text, "lengths": lengths, "tokens": [t.hex() for t in reader.prefix_tokens(KEY, NAME, 1, text, lengths)]})
for kind, value, origin, width in BUCKETS:
    vectors["buckets"].append({"type": kind, "value": value, "origin": origin, "width": width,
                               "token": reader.bucket_token(KEY, NAME, 1, kind, value, origin, width).hex()})
for steps, text in NORMALIZED:
    vectors["normalized"].append({"steps": steps, "text": text, "normalized": reader.normalize(text, steps)})
print(json.dumps(vectors, indent=1, ensure_ascii=False))
