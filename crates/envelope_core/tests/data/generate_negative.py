#!/usr/bin/env python3
"""Writes v1_negative.json from v1.json: values that a reader of format version 1 must refuse, and near misses to open.

    generate_negative.py           write the file beside this script
    generate_negative.py --check   fail if the file differs from what would be written

Deterministic, standard library only (hence the small AES-256-GCM below, for test data and nothing else).

Each case has one fault. Where a lenient reader could overlook it, the value is sealed again over the faulty header: the
tag is right, and the named check is the only thing that refuses it. `error` is the name of the error, or null if the
value opens; then `plaintext` holds what it opens to. The DEK is that of v1.json, whatever the wrapped keys say.
"""
import hmac
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = json.loads((HERE / "v1.json").read_text())
TARGET = HERE / "v1_negative.json"


# AES-256-GCM, FIPS 197 and NIST SP 800-38D, one block at a time.

def double(a):
    return (a << 1) ^ (0x11b if a & 0x80 else 0)


def times(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = double(a), b >> 1
    return product


def sbox():
    table = []
    for a in range(256):
        inverse = next((b for b in range(256) if times(a, b) == 1), 0)
        rotations = [(inverse << n | inverse >> (8 - n)) & 0xff for n in range(5)]
        table.append(rotations[0] ^ rotations[1] ^ rotations[2] ^ rotations[3] ^ rotations[4] ^ 0x63)
    return table


SBOX = sbox()


def round_keys(key):
    words, rcon = [key[i:i + 4] for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ rcon]) + word[1:]
            rcon = double(rcon)
        elif i % 8 == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(word, words[-8])))
    return [b"".join(words[i:i + 4]) for i in range(0, 60, 4)]


def encrypt_block(keys, block):
    state = bytes(a ^ b for a, b in zip(block, keys[0]))
    for number, key in enumerate(keys[1:], 1):
        state = bytes(SBOX[state[(4 * (column + row) + row) % 16]] for column in range(4) for row in range(4))
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = state[c:c + 4]
                mixed += [times(a[r], 2) ^ times(a[(r + 1) % 4], 3) ^ a[(r + 2) % 4] ^ a[(r + 3) % 4] for r in range(4)]
            state = bytes(mixed)
        state = bytes(a ^ b for a, b in zip(state, key))
    return state


def ghash(h, data):
    h, y = int.from_bytes(h, "big"), 0
    for i in range(0, len(data), 16):
        x, v, y = y ^ int.from_bytes(data[i:i + 16], "big"), h, 0
        for bit in range(127, -1, -1):
            y ^= v if x >> bit & 1 else 0
            v = v >> 1 ^ (0xe1 << 120 if v & 1 else 0)
    return y.to_bytes(16, "big")


def gcm_seal(key, nonce, plaintext, aad):
    keys = round_keys(key)
    stream = b"".join(encrypt_block(keys, nonce + n.to_bytes(4, "big")) for n in range(1, 3 + len(plaintext) // 16))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream[16:]))
    pad = lambda data: data + bytes(-len(data) % 16)
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    tag = ghash(encrypt_block(keys, bytes(16)), pad(aad) + pad(ciphertext) + lengths)
    return ciphertext + bytes(a ^ b for a, b in zip(tag, stream[:16]))


# Parts of a value.

def u16(number):
    return number.to_bytes(2, "big")


def pair(key, value):
    return u16(len(key)) + key + u16(len(value)) + value


def context(*pairs, count=None):
    return u16(len(pairs) if count is None else count) + b"".join(pair(k, v) for k, v in pairs)


def entry(reference, wrapped=b"\xab" * 184, provider=1, k=None, length=None):
    body = bytes([len(reference) if k is None else k]) + reference + wrapped
    return bytes([provider]) + u16(len(body) if length is None else length) + body


def compact(flags=0, account=111122223333, region=b"us-west-2"):
    return b"\x02" + bytes([flags]) + account.to_bytes(6, "big") + KEY_UUID + region


def text(reference):
    return b"\x01" + reference


def commitment_of(dek):
    prk = hmac.digest(b"", dek, "sha256")
    return hmac.digest(prk, b"envelope_pg/v1/\x01commit\x01", "sha256")


KEY_UUID = bytes.fromhex("715c081858254245a755138a6d9a11e6")
ARN = b"arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6"
COMMITMENT = bytes.fromhex(VECTORS["commitment"])
NONCE = bytes.fromhex(VECTORS["nonce"])
GCM_KEY = bytes.fromhex(VECTORS["gcm_key"])
PLAINTEXT = b"123-45-6789"
KNOWN = entry(compact())
UNKNOWN = entry(text(b"other:key"), provider=0x7f)


def value(version=1, suite=1, type_=1, flags=None, commitment=COMMITMENT, context_=b"", context_length=None,
          wrapped=KNOWN, wrapped_length=None, plaintext=PLAINTEXT, aad=None, key=GCM_KEY):
    flags = (0 if aad is None else 1) if flags is None else flags
    header = b"\xf6\x45" + bytes([version, suite, type_, flags]) + commitment
    header += u16(len(context_) if context_length is None else context_length) + context_
    wrapped = u16(len(wrapped) if wrapped_length is None else wrapped_length) + wrapped
    return header + wrapped + NONCE + gcm_seal(key, NONCE[12:], plaintext, header + (aad or b""))


def flipped(data, at, bit=1):
    at %= len(data)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1:]


CASES = []


def refuse(name, data, error, aad=None):
    CASES.append({"name": name, "value": data.hex(), "aad": None if aad is None else aad.hex(), "error": error})


def opens(name, data, aad=None, plaintext=PLAINTEXT):
    refuse(name, data, None, aad)
    CASES[-1]["plaintext"] = plaintext.hex()


def head_cases():
    good = value()
    refuse("no bytes", b"", "NotAnEnvelope")
    refuse("first byte of the magic only", good[:1], "NotAnEnvelope")
    refuse("one other byte", b"A", "NotAnEnvelope")
    refuse("magic: first byte differs", flipped(good, 0), "NotAnEnvelope")
    refuse("magic: second byte differs", flipped(good, 1), "NotAnEnvelope")
    refuse("plain text", b"123-45-6789", "NotAnEnvelope")
    for number in (0, 2, 255):
        refuse(f"version {number}", value(version=number), "UnsupportedVersion")
        refuse(f"suite {number}", value(suite=number), "UnsupportedSuite")
    refuse("version 2 and nothing after it", b"\xf6\x45\x02", "UnsupportedVersion")
    refuse("suite 2 and nothing after it", b"\xf6\x45\x01\x02", "UnsupportedSuite")
    for number in (3, 4, 255):
        refuse(f"type {number}", value(type_=number), "Malformed")
    for bit in range(3, 8):
        refuse(f"flags: unknown bit {bit}", value(flags=1 << bit), "Malformed")
    refuse("flags: every bit", value(flags=0xff), "Malformed", b"")
    refuse("flags: an unknown bit counts before REF", value(flags=0x0a), "Malformed")
    refuse("flags: REF", value(flags=2), "UnsupportedReference")
    refuse("flags: REF and PAD", value(flags=6, plaintext=PLAINTEXT + b"\x80"), "UnsupportedReference")
    refuse("flags: REF and nothing after it", b"\xf6\x45\x01\x01\x01\x02", "UnsupportedReference")
    refuse("flags: unknown bit and nothing after it", b"\xf6\x45\x01\x01\x01\x08", "Malformed")


def length_cases():
    pairs = context((b"table", b"patients"))
    data, e, w = value(context_=pairs), len(pairs), len(KNOWN)
    ends = {"magic": 2, "version": 3, "suite": 4, "type": 5, "flags": 6, "commitment": 38, "context length": 40,
            "context": 40 + e, "wrapped keys length": 42 + e, "wrapped keys": 42 + e + w, "nonce": 66 + e + w}
    for field, end in ends.items():
        if field != "magic":
            refuse(f"cut one byte before the end of the {field}", data[:end - 1], "Truncated")
        refuse(f"cut after the {field}", data[:end], "Truncated")
    refuse("cut to 15 bytes after the nonce", data[:81 + e + w], "Truncated")
    refuse("cut to 16 bytes after the nonce", data[:82 + e + w], "AuthenticationFailed")
    refuse("last byte missing", data[:-1], "AuthenticationFailed")
    refuse("last byte of an empty text missing", value(plaintext=b"")[:-1], "Truncated")
    refuse("one byte appended", data + b"\0", "AuthenticationFailed")
    refuse("context length past the end", value(context_length=0xffff), "Truncated")
    refuse("wrapped keys length past the end", value(wrapped_length=0xffff), "Truncated")
    refuse("wrapped keys length 0", value(wrapped=b""), "Malformed")


def context_cases():
    a, b, reserved = (b"a", b"1"), (b"b", b"2"), (b"envelope_pg", b"v1")
    faults = {
        "keys not sorted": context(b, a),
        "keys sorted by length, not by bytes": context(b, (b"aa", b"1")),
        "keys sorted by UTF-16 units, not by bytes": context(("\U00010000".encode(), b"1"), ("\uff61".encode(), b"2")),
        "longer key before its prefix": context((b"ab", b"1"), a),
        "same key twice": context(a, (b"a", b"2")),
        "same pair twice": context(a, a),
        "count 0 with length 2": context(),
        "count 0 with a pair": context(a, count=0),
        "one byte": b"\0",
        "count one too high": context(a, b, count=3),
        "count one too low": context(a, b, count=1),
        "count 65535": context(a, count=0xffff),
        "key length past the context": u16(1) + u16(6) + b"a" + u16(1) + b"1",
        "key length 65535": u16(1) + u16(0xffff) + b"a" + u16(1) + b"1",
        "value length past the context": u16(1) + u16(1) + b"a" + u16(2) + b"1",
        "value length missing": u16(1) + u16(1) + b"a",
        "value length cut": u16(1) + u16(1) + b"a\0",
        "one byte after the last pair": context(a) + b"\0",
        "key not UTF-8": context((b"\xff", b"1")),
        "key with an overlong form": context((b"\xc0\x80", b"1")),
        "value not UTF-8": context((b"a", b"\xe9")),
        "value with a surrogate": context((b"a", b"\xed\xa0\x80")),
        "the reserved key": context(reserved),
        "the reserved key among others": context(a, reserved, (b"table", b"t")),
    }
    for name, pairs in faults.items():
        refuse(f"context: {name}", value(context_=pairs), "Malformed")
    opens("context: prefix before longer key", value(context_=context(a, (b"ab", b"1"))))
    opens("context: sorted by bytes, not by length", value(context_=context((b"aa", b"1"), b)))
    opens("context: sorted by bytes, not by UTF-16 units",
          value(context_=context(("\uff61".encode(), b"2"), ("\U00010000".encode(), b"1"))))
    opens("context: a key that begins with the reserved one", value(context_=context((b"envelope_pg2", b"v1"))))


def wrapped_key_cases():
    faults = {
        "entry length past the wrapped keys": entry(compact(), length=0xffff),
        "entry length one too high": entry(compact(), length=219),
        "entry length 0": entry(b"", length=0)[:3],
        "one byte after the last entry": KNOWN + b"\x01",
        "two bytes after the last entry": KNOWN + b"\x01\0",
        "second entry past the end": KNOWN + entry(compact(), length=219),
        "key reference longer than the entry": entry(compact(), wrapped=b"", k=34),
        "key reference length 255": entry(compact(), k=255),
        "key reference length 0": entry(b""),
        "no wrapped DEK": entry(compact(), wrapped=b""),
        "reference form 0": entry(b"\0" + compact()[1:]),
        "reference form 3": entry(b"\x03" + compact()[1:]),
        "reference form 255": entry(b"\xff" + ARN),
        "reference form without content": entry(b"\x02"),
        "compact form cut before the region": entry(compact()[:23]),
        "compact form: region empty": entry(compact(region=b"")),
        "compact form: region of 64 characters": entry(compact(region=b"a" * 64)),
        "compact form: region in upper case": entry(compact(region=b"US-WEST-2")),
        "compact form: region with a colon": entry(compact(region=b"us-west-2:")),
        "compact form: region with an underscore": entry(compact(region=b"us_west_2")),
        "compact form: region with a newline": entry(compact(region=b"us-west-2\n")),
        "compact form: region not ASCII": entry(compact(region="us-w\u00e9st".encode())),
        "compact form: partition 3": entry(compact(flags=3)),
        "compact form: partition 3, multi-region": entry(compact(flags=0x83)),
        "compact form: account 1000000000000": entry(compact(account=10**12)),
        "compact form: highest account of 48 bits": entry(compact(account=2**48 - 1)),
        "text form: empty": entry(text(b"")),
        "text form: not UTF-8": entry(text(b"local:\xff")),
        "text form: local with not UTF-8": entry(text(b"local:\xed\xa0\x80"), provider=2),
        "text form: ARN that has a compact form": entry(text(ARN)),
        "text form: multi-region ARN that has a compact form":
            entry(text(ARN.replace(b"715c0818-5825-4245-a755-138a6d9a11e6", b"mrk-" + KEY_UUID.hex().encode()))),
        "text form: aws-cn ARN that has a compact form": entry(text(ARN.replace(b"arn:aws:", b"arn:aws-cn:"))),
        "text form: aws-us-gov ARN that has a compact form": entry(text(ARN.replace(b"arn:aws:", b"arn:aws-us-gov:"))),
        "bad second entry": KNOWN + entry(b"\x03" + compact()[1:]),
    }
    wrong_keys = {
        "a KMS entry with a local key": entry(text(b"local:dev")),
        "a local entry with a KMS key": entry(compact(), provider=2),
        "a KMS entry with an alias": entry(text(b"alias/app")),
        "a KMS entry with the ARN of an alias": entry(text(ARN.split(b":key/")[0] + b":alias/app")),
        "a KMS entry with a key id that is no ARN": entry(text(b"715c0818-5825-4245-a755-138a6d9a11e6")),
        "a KMS entry with an ARN of another service": entry(text(ARN.replace(b":kms:", b":s3:"))),
        "a KMS entry with an ARN with a region in upper case": entry(text(ARN.replace(b"us-west-2", b"US-WEST-2"))),
        "a KMS entry with an ARN with a region that is a host name":
            entry(text(ARN.replace(b"us-west-2", b"example.com/"))),
        "a KMS entry with an ARN with an account of 11 digits": entry(text(ARN.replace(b"1111", b"111"))),
        "a KMS entry with an ARN whose key id is no uuid": entry(text(ARN.replace(b"key/715c", b"key/x715c"))),
        "a KMS entry with an ARN and a newline": entry(text(ARN + b"\n")),
        "a local entry with no name": entry(text(b"local:"), provider=2),
        "a local entry with a name of 65 characters": entry(text(b"local:" + b"a" * 65), provider=2),
        "a local entry with a space in its name": entry(text(b"local:a b"), provider=2),
        "a local entry with a slash in its name": entry(text(b"local:../x"), provider=2),
        "a local entry without its prefix": entry(text(b"dev"), provider=2),
        "an unknown provider with a reference longer than the entry": entry(b"k", b"", provider=0x7f, k=9) + KNOWN,
    }
    faults.update(wrong_keys)
    for bit in range(2, 7):
        faults[f"compact form: flags bit {bit}"] = entry(compact(flags=1 << bit))
    for name, wrapped in faults.items():
        refuse(f"wrapped keys: {name}", value(wrapped=wrapped), "Malformed")

    refuse("wrapped keys: unknown provider alone", value(wrapped=UNKNOWN), "UnsupportedProvider")
    refuse("wrapped keys: provider 0 alone", value(wrapped=entry(text(b"k"), provider=0)), "UnsupportedProvider")
    refuse("wrapped keys: two unknown providers", value(wrapped=UNKNOWN + UNKNOWN), "UnsupportedProvider")

    good = {
        "unknown provider, then a known one": UNKNOWN + KNOWN,
        "known provider, then an unknown one": KNOWN + UNKNOWN,
        "two known ones": KNOWN + entry(compact(region=b"eu-central-1")),
        "a KMS key and a local one": KNOWN + entry(text(b"local:dev"), b"\xab" * 65, provider=2),
        "replaced, as a rewrap does": entry(compact(region=b"eu-central-1"), b"\xcd" * 96),
        "compact form: aws-cn": entry(compact(flags=1, region=b"cn-north-1")),
        "compact form: aws-us-gov": entry(compact(flags=2, region=b"us-gov-west-1")),
        "compact form: aws-us-gov, multi-region": entry(compact(flags=0x82, region=b"us-gov-west-1")),
        "compact form: region of 63 characters": entry(compact(region=b"a" * 63)),
        "compact form: account 0": entry(compact(account=0)),
        "compact form: account 999999999999": entry(compact(account=10**12 - 1)),
        "text form: ARN of another partition": entry(text(ARN.replace(b"arn:aws:", b"arn:aws-iso:"))),
        "text form: ARN with upper-case hexadecimal": entry(text(ARN.replace(b"715c", b"715C"))),
        "a local entry with every kind of character in its name":
            entry(text(b"local:Az09_.-" + b"a" * 57), b"\xab" * 65, provider=2),
        "unknown provider with a reference of unknown form, then a known one": entry(b"\x09", provider=3) + KNOWN,
        "unknown provider with no reference and no wrapped DEK, then a known one": entry(b"", b"", provider=3) + KNOWN,
    }
    for name, wrapped in good.items():
        opens(f"wrapped keys: {name}", value(wrapped=wrapped))


def authentication_cases():
    good, bound = value(), value(aad=b"42")
    other = commitment_of(bytes(32))
    failed = "AuthenticationFailed"
    refuse("commitment of another DEK, tag right", value(commitment=other), failed)
    refuse("commitment of another DEK put in place", good[:6] + other + good[38:], failed)
    refuse("commitment: first bit flipped, tag right", value(commitment=flipped(COMMITMENT, 0, 0x80)), failed)
    refuse("commitment: last bit flipped, tag right", value(commitment=flipped(COMMITMENT, 31)), failed)
    refuse("sealed under another key, commitment right", value(key=bytes(32)), failed)
    refuse("aad differs", bound, failed, b"43")
    refuse("aad longer", bound, failed, b"420")
    refuse("aad shorter", bound, failed, b"4")
    refuse("aad empty instead of some", bound, failed, b"")
    refuse("aad missing", bound, failed)
    refuse("empty aad missing", value(aad=b""), failed)
    refuse("aad given where none was sealed", good, failed, b"42")
    refuse("empty aad given where none was sealed", good, failed, b"")
    refuse("aad flag cleared, no aad", bound[:5] + b"\0" + bound[6:], failed)
    refuse("aad flag set, empty aad", good[:5] + b"\x01" + good[6:], failed, b"")
    refuse("aad flag set, tag right, no aad", value(flags=1), failed)
    refuse("aad flag clear, tag over an aad", value(flags=0, aad=b"42"), failed, b"42")
    refuse("type changed", good[:4] + b"\0" + good[5:], failed)
    added = context((b"a", b"1"))
    refuse("context added", good[:38] + u16(len(added)) + added + good[40:], failed)
    refuse("context removed", value(context_=added)[:38] + u16(0) + value(context_=added)[40 + len(added):], failed)
    places = {"first byte of the nonce": -51, "last byte of the first half of the nonce": -40,
              "last byte of the nonce": -28, "first byte of the ciphertext": -27,
              "last byte of the ciphertext": -17, "first byte of the tag": -16, "last byte of the tag": -1}
    for name, at in places.items():
        refuse(f"flipped bit in the {name}", flipped(good, at), failed)
    refuse("tag of zeros", good[:-16] + bytes(16), failed)


def padding_cases():
    for name, tail in {"80": b"\x80", "80 00": b"\x80\0", "80 and 20 zeros": b"\x80" + bytes(20)}.items():
        opens(f"padded with {name}", value(flags=4, plaintext=PLAINTEXT + tail))
    opens("padded, empty text", value(flags=4, plaintext=b"\x80" + bytes(15)), plaintext=b"")
    opens("padded, with aad", value(flags=5, plaintext=PLAINTEXT + b"\x80\0", aad=b"42"), aad=b"42")
    opens("padded, bytea that ends like a padding", value(type_=0, flags=4, plaintext=b"a\x80\0\x80\0"),
          plaintext=b"a\x80\0")
    opens("not padded, bytea that ends like a padding", value(type_=0, plaintext=b"a\x80\0"), plaintext=b"a\x80\0")
    failed = "AuthenticationFailed"
    refuse("padding: flag set on a value without padding", value()[:5] + b"\x04" + value()[6:], failed)
    refuse("padding: flag cleared", flipped(value(flags=4, plaintext=PLAINTEXT + b"\x80"), 5, 4), failed)
    refuse("padding: no mark, tag right", value(flags=4), "Malformed")
    refuse("padding: zeros without a mark, tag right", value(flags=4, plaintext=PLAINTEXT + bytes(5)), "Malformed")
    refuse("padding: zeros only, tag right", value(flags=4, plaintext=bytes(16)), "Malformed")
    refuse("padding: nothing at all, tag right", value(flags=4, plaintext=b""), "Malformed")


def main():
    # The cipher above against the vectors: the first case is `value()` with the defaults.
    assert value().hex() == VECTORS["cases"][0]["value"], "the cipher or the layout of this script is wrong"
    for group in (head_cases, length_cases, context_cases, wrapped_key_cases, authentication_cases, padding_cases):
        group()
    names = [case["name"] for case in CASES]
    assert len(set(names)) == len(names), "case names must be unique"
    written = json.dumps(CASES, indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if TARGET.read_text() == written else f"{TARGET.name} is out of date")
    TARGET.write_text(written)


if __name__ == "__main__":
    main()
