#!/usr/bin/env python3
"""Independent reader of envelope_pg values, format version 1. See FORMAT.md; nothing here comes from the extension.

    reader.py inspect               < value    the parts of a value as JSON; needs no key
    reader.py open --dek HEX        < value    the plaintext, given the unwrapped data key
    reader.py open --dek HEX --aad TEXT < value
    reader.py token --index-key HEX --name NAME --version N KIND VALUE [OPTIONS]      a search token, in hex

The value on standard input is binary, or hex as psql prints it (with or without \\x). `inspect` needs the standard
library only, `open` the package `cryptography`. Exit status: 0, or 1 and the name of the error, or 2 for wrong usage.
"""
import argparse
import datetime
import decimal
import hmac
import json
import re
import sys
import unicodedata
import uuid

MAGIC, VERSION, SUITE = b"\xf6\x45", 1, 1
TYPES = {0: "bytea", 1: "text", 2: "jsonb"}
AAD, REF, PAD = 1, 2, 4
PROVIDERS = {1: "aws-kms", 2: "local"}
PARTITIONS = ["aws", "aws-cn", "aws-us-gov"]
MAX_ACCOUNT = 999_999_999_999
ARN = "arn:%s:kms:[a-z0-9-]{1,63}:[0-9]{12}:key/(mrk-%s{32}|%s{8}(-%s{4}){3}-%s{12})"
COMPACT_ARN = re.compile(ARN % (("(aws|aws-cn|aws-us-gov)",) + ("[0-9a-f]",) * 4))
KEY_OF_PROVIDER = {1: re.compile(ARN % (("aws[a-z0-9-]{0,60}",) + ("[0-9a-fA-F]",) * 4)),
                   2: re.compile("local:[A-Za-z0-9_.-]{1,64}")}


class Refused(Exception):
    """A value is refused; args[0] is one of the error names of FORMAT.md, section 12."""


class Bytes:
    """A cursor that raises `error` when a field runs past the end."""

    def __init__(self, data, error):
        self.data, self.at, self.error = data, 0, error

    def take(self, count, what):
        if count > len(self.data) - self.at:
            raise Refused(self.error, what + " runs past the end")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, width, what):
        return int.from_bytes(self.take(width, what), "big")

    def done(self):
        return self.at == len(self.data)


def utf8(data, what):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("Malformed", what + " is not UTF-8") from None


def parse_context(data):
    if not data:
        return {}
    field, pairs, last = Bytes(data, "Malformed"), {}, None
    count = field.number(2, "context count")
    if count == 0:
        raise Refused("Malformed", "an empty context is written as no bytes")
    for _ in range(count):
        key = field.take(field.number(2, "context key length"), "context key")
        value = field.take(field.number(2, "context value length"), "context value")
        if last is not None and key <= last:
            raise Refused("Malformed", "context keys are not in strictly ascending order")
        if key == b"envelope_pg":
            raise Refused("Malformed", "the context holds the reserved key")
        pairs[utf8(key, "context key")], last = utf8(value, "context value"), key
    if not field.done():
        raise Refused("Malformed", "bytes after the last context pair")
    return pairs


def parse_reference(provider, data):
    if data[:1] == b"\x01":
        key_id = utf8(data[1:], "key reference")
        if COMPACT_ARN.fullmatch(key_id):
            raise Refused("Malformed", "text reference of an ARN that has a compact form")
    elif data[:1] == b"\x02" and len(data) >= 24:
        flags, account, key, region = data[1], int.from_bytes(data[2:8], "big"), data[8:24], data[24:]
        if flags & 0x7c or flags & 3 == 3 or account > MAX_ACCOUNT or not region.isascii():
            raise Refused("Malformed", "bad compact reference")
        name = "mrk-" + key.hex() if flags & 0x80 else str(uuid.UUID(bytes=key))
        key_id = f"arn:{PARTITIONS[flags & 3]}:kms:{region.decode()}:{account:012}:key/{name}"
    else:
        raise Refused("Malformed", "unknown reference form, or a compact one that is too short")
    if not KEY_OF_PROVIDER[provider].fullmatch(key_id):
        raise Refused("Malformed", "the reference is not that of a key of its provider")
    return key_id


def parse_wrapped_keys(data):
    if not data:
        raise Refused("Malformed", "no wrapped key")
    field, entries = Bytes(data, "Malformed"), []
    while not field.done():
        provider = field.number(1, "provider")
        entry = Bytes(field.take(field.number(2, "wrapped key length"), "wrapped key"), "Malformed")
        known = provider in PROVIDERS
        reference = entry.take(entry.number(1, "reference length"), "reference")
        wrapped = entry.data[entry.at:]
        if known and not wrapped:
            raise Refused("Malformed", "empty wrapped DEK")
        entries.append({"provider": PROVIDERS.get(provider, provider), "known": known, "wrapped_dek": wrapped.hex(),
                        "key_id": parse_reference(provider, reference) if known else reference.hex()})
    return entries


def parse(data):
    """The parts of a value, or Refused. The order of the checks is that of FORMAT.md, section 10.1."""
    if data[:2] != MAGIC:
        raise Refused("NotAnEnvelope", "magic differs")
    value = Bytes(data, "Truncated")
    value.take(2, "magic")
    if value.number(1, "version") != VERSION:
        raise Refused("UnsupportedVersion", f"version {data[2]}")
    if value.number(1, "suite") != SUITE:
        raise Refused("UnsupportedSuite", f"suite {data[3]}")
    type_ = value.number(1, "type")
    if type_ not in TYPES:
        raise Refused("Malformed", f"type {type_}")
    flags = value.number(1, "flags")
    if flags & ~(AAD | REF | PAD):
        raise Refused("Malformed", f"flags {flags:#04x}")
    if flags & REF:
        raise Refused("UnsupportedReference", "flag REF")
    commitment = value.take(32, "commitment")
    context = value.take(value.number(2, "context length"), "context")
    header = data[:value.at]
    wrapped = value.take(value.number(2, "wrapped keys length"), "wrapped keys")
    nonce = value.take(24, "nonce")
    if len(data) - value.at < 16:
        raise Refused("Truncated", "tag runs past the end")
    return {"type": TYPES[type_], "flags": flags, "commitment": commitment, "context": parse_context(context),
            "header": header, "wrapped_keys": parse_wrapped_keys(wrapped), "nonce": nonce, "sealed": data[value.at:]}


def key_schedule(dek, suite=SUITE):
    """(PRK, K, C): RFC 5869 with SHA-256, an empty salt and one block of output for each label."""
    prk = hmac.digest(b"", dek, "sha256")
    expand = lambda label: hmac.digest(prk, b"envelope_pg/v1/" + bytes([suite]) + label + b"\x01", "sha256")
    return prk, expand(b"key"), expand(b"commit")


def xaes_key(key, nonce):
    """(L, K1, GCM key): the subkey of C2SP XAES-256-GCM for the first half of the nonce."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    block = lambda data: Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data)
    l = block(bytes(16))
    doubled = int.from_bytes(l, "big") << 1
    k1 = doubled if doubled < 1 << 128 else doubled ^ (1 << 128 | 0x87)
    half = lambda i: block((k1 ^ int.from_bytes(bytes([0, i, 0x58, 0]) + nonce[:12], "big")).to_bytes(16, "big"))
    return l, k1.to_bytes(16, "big"), half(1) + half(2)


def open_value(data, dek, aad=None):
    """(plaintext, type) of a value under an unwrapped DEK. `aad` is bytes, or None for no associated data."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    value = parse(data)
    if not any(entry["known"] for entry in value["wrapped_keys"]):
        raise Refused("UnsupportedProvider", "no wrapped key of a known provider")
    failed = Refused("AuthenticationFailed", "wrong key, wrong associated data, or the value was changed")
    if bool(value["flags"] & AAD) != (aad is not None):
        raise failed
    _, key, commitment = key_schedule(dek)
    if not hmac.compare_digest(commitment, value["commitment"]):
        raise failed
    try:
        gcm = AESGCM(xaes_key(key, value["nonce"])[2])
        plaintext = gcm.decrypt(value["nonce"][12:], value["sealed"], value["header"] + (aad or b""))
    except InvalidTag:
        raise failed from None
    if value["flags"] & PAD:
        plaintext = plaintext.rstrip(b"\x00")
        if plaintext[-1:] != b"\x80":
            raise Refused("Malformed", "padding")
        plaintext = plaintext[:-1]
    return plaintext, value["type"]


# Search tokens: FORMAT.md, section 17.
KINDS = {"bytea": 0, "text": 1, "bigint": 3, "numeric": 4, "date": 5, "timestamptz": 6, "uuid": 7}
EQUALITY, PREFIX, BUCKET = 1, 2, 3
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200b)))
LEAST = {"date": -(1 << 31), "timestamptz": -(1 << 63)}


def sub_key(index_key, purpose, name, version):
    """RFC 5869 with SHA-256, an empty salt and one block of output."""
    name = name.encode()
    info = (b"envelope_pg index v1\x00" + bytes([purpose]) + len(name).to_bytes(2, "big") + name + version.to_bytes(4, "big"))
    return hmac.digest(hmac.digest(b"", index_key, "sha256"), info + b"\x01", "sha256")


def number_of(kind, value):
    """A bigint, a date or a timestamptz as the integer that goes into a token."""
    if kind in LEAST and value in ("-infinity", "infinity"):
        return LEAST[kind] if value == "-infinity" else -LEAST[kind] - 1
    if kind == "date":
        return (datetime.date.fromisoformat(value) - EPOCH.date()).days
    if kind == "timestamptz":
        return (datetime.datetime.fromisoformat(value) - EPOCH) // datetime.timedelta(microseconds=1)
    return int(value)


def encoding(kind, value):
    """The one encoding of a value, which is given as text."""
    if kind == "numeric":
        if value in ("NaN", "Infinity", "-Infinity"):
            return value.encode()
        number = decimal.Decimal(value)
        text = format(number, "f")
        return (text.rstrip("0").rstrip(".") if "." in text else text).encode() if number else b"0"
    if kind in ("bigint", "date", "timestamptz"):
        return number_of(kind, value).to_bytes(4 if kind == "date" else 8, "big", signed=True)
    if kind == "uuid":
        return uuid.UUID(value).bytes
    return bytes.fromhex(value) if kind == "bytea" else value.encode()


def equality_token(index_key, name, version, kind, value, bits=None):
    mac = hmac.digest(sub_key(index_key, EQUALITY, name, version), bytes([KINDS[kind]]) + encoding(kind, value), "sha256")
    if bits is None:
        return bytes([version % 256]) + mac[:15]
    count = -(-bits // 8)
    masked = int.from_bytes(mac[:count], "big") >> (8 * count - bits) << (8 * count - bits)
    return bytes([version % 256]) + masked.to_bytes(count, "big")


def prefix_tokens(index_key, name, version, text, lengths):
    key = sub_key(index_key, PREFIX, name, version)
    return [hmac.digest(key, bytes([KINDS["text"], n]) + text[:n].encode(), "sha256")[:4] for n in lengths if len(text) >= n]


def bucket_token(index_key, name, version, kind, value, origin, width):
    """`width` is in units of the type: 1, days, microseconds."""
    if kind == "numeric":
        with decimal.localcontext(prec=2000):
            number = int(((decimal.Decimal(value) - decimal.Decimal(origin)) / decimal.Decimal(width)).to_integral_value("ROUND_FLOOR"))
    else:
        number = (number_of(kind, value) - number_of(kind, origin)) // int(width)
    data = bytes([KINDS[kind]]) + number.to_bytes(8, "big", signed=True)
    return bytes([version % 256]) + hmac.digest(sub_key(index_key, BUCKET, name, version), data, "sha256")[:15]


def normalize(text, steps):
    """The steps of normalization in their order. Lower case by character, not by the characters around it."""
    lower = lambda text: "".join(char.lower() for char in text).replace("\u03c2", "\u03c3")
    for step in steps:
        text = {"lower": lower, "nfkc": lambda text: unicodedata.normalize("NFKC", text), "trim": lambda text: text.strip(WHITE_SPACE),
                "digits": lambda text: "".join(char for char in text if char in "0123456789"),
                "email": lambda text: lower(text.strip(WHITE_SPACE))}[step](text)
    return text


def tokens(arguments):
    key = arguments.index_key, arguments.name, arguments.version
    value = normalize(arguments.value, arguments.normalize) if arguments.kind == "text" else arguments.value
    if arguments.lengths:
        return prefix_tokens(*key, value, arguments.lengths)
    if arguments.width is not None:
        return [bucket_token(*key, arguments.kind, value, arguments.origin, arguments.width)]
    return [equality_token(*key, arguments.kind, value, arguments.bits)]


def read_input(raw):
    if raw[:2] == MAGIC:
        return raw
    text = raw.strip().removeprefix(b"\\x")
    return bytes.fromhex(text.decode()) if re.fullmatch(rb"([0-9a-fA-F]{2})+", text) else raw


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("inspect", help="print the parts of a value as JSON")
    opening = commands.add_parser("open", help="write the plaintext")
    opening.add_argument("--dek", required=True, type=bytes.fromhex, help="the unwrapped data key, 32 bytes in hex")
    opening.add_argument("--aad", help="the associated data, as text; the empty string is not the same as none")
    token = commands.add_parser("token", help="print a search token")
    token.add_argument("--index-key", required=True, type=bytes.fromhex, help="the unwrapped index key, 32 bytes in hex")
    token.add_argument("--name", required=True, help="of the index")
    token.add_argument("--version", type=int, default=1, help="of the index key")
    token.add_argument("--bits", type=int, help="of a short token")
    token.add_argument("--lengths", type=int, nargs="+", help="of prefixes, in characters")
    token.add_argument("--width", help="of a bucket: a number, days, or microseconds")
    token.add_argument("--origin", default="0", help="of the buckets: a value of the kind")
    token.add_argument("--normalize", nargs="+", default=[], help="lower, nfkc, trim, digits, email, in the order to do them")
    token.add_argument("kind", choices=KINDS)
    token.add_argument("value", help="bytea in hex, dates and times in ISO 8601")
    arguments = parser.parse_args()
    if arguments.command == "token":
        print(*[token.hex() for token in tokens(arguments)], sep="\n")
        return
    data = read_input(sys.stdin.buffer.read())
    try:
        if arguments.command == "open":
            if len(arguments.dek) != 32:
                parser.error("--dek needs 32 bytes")
            aad = None if arguments.aad is None else arguments.aad.encode()
            sys.stdout.buffer.write(open_value(data, arguments.dek, aad)[0])
        else:
            parts = parse(data)
            shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in parts.items()}
            shown["flags"] = [name for name, bit in (("aad", AAD), ("pad", PAD)) if parts["flags"] & bit]
            shown["ciphertext"], shown["tag"] = parts["sealed"][:-16].hex(), parts["sealed"][-16:].hex()
            del shown["sealed"]
            print(json.dumps(shown, indent=2, ensure_ascii=False))
    except Refused as error:
        sys.exit(f"{error.args[0]}: {error.args[1]}")


if __name__ == "__main__":
    main()
