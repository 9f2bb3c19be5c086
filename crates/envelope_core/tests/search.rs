//! Search tokens: those of docs/reader.py, value by value; the primitives against the vectors of their RFCs; and that a token
//! says no more than it is made to say.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use common::{open_with, seal_with, unhex};
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::search::{
    Bucketed, Buckets, IndexKey, PrefixLengths, SearchError, Searchable, Step, TokenBits, ValueKind, normalize,
};
use envelope_core::value::{DataKey, DerivedKeys};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// tests/data/search.json, made by generate_search.py beside it.
#[derive(Deserialize)]
struct Vectors {
    index_key: String,
    name: String,
    equality: Vec<Equality>,
    bits: Vec<Bits>,
    prefixes: Vec<Prefixes>,
    buckets: Vec<Bucket>,
    normalized: Vec<Normalized>,
}

#[derive(Deserialize)]
struct Equality {
    version: u32,
    #[serde(rename = "type")]
    kind: String,
    value: String,
    encoding: String,
    token: String,
}

#[derive(Deserialize)]
struct Bits {
    bits: i64,
    value: String,
    token: String,
}

#[derive(Deserialize)]
struct Prefixes {
    value: String,
    lengths: Vec<i64>,
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct Bucket {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    origin: String,
    width: String,
    token: String,
}

#[derive(Deserialize)]
struct Normalized {
    steps: Vec<String>,
    text: String,
    normalized: String,
}

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

fn vectors() -> Vectors {
    serde_json::from_slice(&std::fs::read(Path::new(DATA).join("search.json")).unwrap()).unwrap()
}

fn context(name: &str, version: u32) -> EncryptionContext {
    let pairs = serde_json::json!({"purpose": "envelope_pg index key", "name": name, "version": version.to_string()});
    EncryptionContext::from_json(&pairs.to_string()).unwrap()
}

fn index_key(hex: &str, name: &str, version: u32) -> IndexKey {
    IndexKey::of(&Dek::take_from(&mut unhex(hex)).unwrap(), &context(name, version)).unwrap()
}

fn key() -> IndexKey {
    let vectors = vectors();
    index_key(&vectors.index_key, &vectors.name, 1)
}

/// The value of a vector by its encoding, which the reader has made of its text.
fn searchable<'a>(kind: &str, text: &'a str, bytes: &'a [u8]) -> Searchable<'a> {
    match kind {
        "text" => Searchable::text(text.as_bytes()),
        "bytea" => Searchable::bytea(bytes),
        "bigint" => Searchable::bigint(text.parse().unwrap()),
        "numeric" => Searchable::numeric(text).unwrap(),
        "date" => Searchable::date(i32::from_be_bytes(bytes.try_into().unwrap())),
        "timestamptz" => Searchable::timestamptz(i64::from_be_bytes(bytes.try_into().unwrap())),
        "uuid" => Searchable::uuid(bytes.try_into().unwrap()),
        kind => panic!("{kind}"),
    }
}

#[test]
fn the_reader_computes_the_vectors() {
    let script = Path::new(DATA).join("generate_search.py");
    let output = Command::new("python3").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == std::fs::read(Path::new(DATA).join("search.json")).unwrap());
}

#[test]
fn equality_tokens() {
    let vectors = vectors();
    let mut kinds = HashSet::new();
    for Equality { version, kind, value, encoding, token } in &vectors.equality {
        let encoding = unhex(encoding);
        let searchable = searchable(kind, value, &encoding);
        assert_eq!(searchable.as_bytes(), encoding, "{kind} {value}");
        let key = index_key(&vectors.index_key, &vectors.name, *version);
        assert_eq!(hex::encode(key.equality_token(&searchable)), *token, "{kind} {value}");
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 7);
}

#[test]
fn short_tokens() {
    let key = key();
    let value = Searchable::text(&b"Ada"[..]);
    for Bits { bits, value: text, token } in &vectors().bits {
        assert_eq!(text, "Ada");
        assert_eq!(hex::encode(key.short_token(&value, TokenBits::new(*bits).unwrap())), *token, "{bits}");
    }
    for bits in [i64::MIN, -1, 0, 33, 256, i64::MAX] {
        assert_eq!(TokenBits::new(bits), Err(SearchError::Bits(bits)));
    }
}

#[test]
fn short_tokens_are_as_many_as_their_bits_say() {
    let key = key();
    for bits in [1, 3, 8, 9] {
        let token = |number| key.short_token(&Searchable::bigint(number), TokenBits::new(bits).unwrap());
        let tokens: HashSet<_> = (0..10_000).map(token).collect();
        assert_eq!(tokens.len(), 1 << bits);
    }
}

#[test]
fn prefix_tokens() {
    let key = key();
    for Prefixes { value, lengths, tokens } in &vectors().prefixes {
        let lengths = PrefixLengths::new(lengths).unwrap();
        assert_eq!(key.prefix_tokens(value, &lengths).map(hex::encode).collect::<Vec<_>>(), *tokens, "{value}");
        let needle = key.needle_token(value, &lengths).ok().map(hex::encode);
        assert_eq!(needle, tokens.last().cloned(), "{value}");
    }
    for lengths in [&[][..], &[2], &[9], &[3, 3], &[4, 3], &[-1], &[3, 300]] {
        assert_eq!(PrefixLengths::new(lengths), Err(SearchError::PrefixLengths), "{lengths:?}");
    }
}

#[test]
fn a_needle_is_found_by_its_longest_prefix_and_never_everywhere() {
    let (key, lengths) = (key(), PrefixLengths::new(&[3, 5]).unwrap());
    let tokens: Vec<_> = key.prefix_tokens("Müllerin", &lengths).collect();
    for (needle, at) in [("Mül", 0), ("Müll", 0), ("Mülle", 1), ("Müllerin", 1), ("Müllex", 1)] {
        assert_eq!(key.needle_token(needle, &lengths), Ok(tokens[at]), "{needle}");
    }
    for needle in ["", "M", "Mü"] {
        assert_eq!(key.needle_token(needle, &lengths), Err(SearchError::NeedleTooShort(3)), "{needle}");
    }
}

#[test]
fn bucket_tokens() {
    let key = key();
    for Bucket { kind, value, origin, width, token } in &vectors().buckets {
        // The shell has PostgreSQL count the buckets of numerics, and gives dates and times as numbers.
        let (kind, number) = match kind.as_str() {
            "bigint" => {
                let buckets = Buckets::new(origin.parse().unwrap(), width.parse().unwrap()).unwrap();
                (ValueKind::Bigint, buckets.number(value.parse().unwrap()).unwrap())
            }
            "numeric" => (ValueKind::Numeric, [-1, 3][usize::from(value == "99.999") * usize::from(origin == "0.5")]),
            "date" => {
                let numbers = BTreeMap::from([
                    ("1999-12-31", -1),
                    ("2000-01-01", 0),
                    ("1970-01-01", -10_957),
                    ("2026-11-26", 9_826),
                ]);
                let buckets = Buckets::new(numbers[origin.as_str()], width.parse().unwrap()).unwrap();
                (ValueKind::Date, buckets.number(numbers[value.as_str()]).unwrap())
            }
            _ => {
                let at = 1_795_687_200_000_000 - 946_684_800_000_000;
                let buckets = Buckets::new(-946_684_800_000_000, width.parse().unwrap()).unwrap();
                (ValueKind::Timestamptz, buckets.number(at).unwrap())
            }
        };
        assert_eq!(hex::encode(key.bucket_token(Bucketed::new(kind, number))), *token, "{kind:?} {value}");
    }
}

#[test]
fn normalized() {
    for Normalized { steps, text, normalized } in &vectors().normalized {
        let steps: Vec<Step> = steps.iter().map(|step| step.parse().unwrap()).collect();
        assert_eq!(normalize(text, &steps).unwrap(), *normalized, "{steps:?}");
    }
}

#[test]
fn names_versions_keys_and_kinds_do_not_meet() {
    let value = Searchable::text(&b"Ada Lovelace"[..]);
    let one = vectors().index_key;
    let other = "ff".repeat(32);
    let mut seen = HashSet::new();
    for (key, name, version) in
        [(&one, "a", 1), (&one, "a", 2), (&one, "a", 257), (&one, "b", 1), (&one, "", 1), (&other, "a", 1)]
    {
        let key = index_key(key, name, version);
        let bucket = Bucketed::new(ValueKind::Text, 0);
        let prefix = key.needle_token("Ada", &PrefixLengths::new(&[3]).unwrap()).unwrap();
        for token in [&key.equality_token(&value)[1..], &key.bucket_token(bucket)[1..], &prefix] {
            assert!(seen.insert(token[..4].to_vec()));
        }
        assert_eq!(key.equality_token(&value)[0], version as u8);
    }
}

#[test]
fn a_data_key_is_an_index_key_only_if_its_context_says_so() {
    let dek = || Dek::take_from(&mut [7; 32]).unwrap();
    for json in [
        "{}",
        r#"{"name": "a", "version": "1"}"#,
        r#"{"purpose": "index key", "name": "a", "version": "1"}"#,
        r#"{"purpose": "envelope_pg index key", "version": "1"}"#,
        r#"{"purpose": "envelope_pg index key", "name": "a"}"#,
        r#"{"purpose": "envelope_pg index key", "name": "a", "version": "-1"}"#,
        r#"{"purpose": "envelope_pg index key", "name": "a", "version": "4294967296"}"#,
    ] {
        assert!(IndexKey::of(&dek(), &EncryptionContext::from_json(json).unwrap()).is_none(), "{json}");
    }
    let wrapped = || WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: vec![1; 65] };
    let data_key = DataKey::generated(dek(), wrapped(), &context("a", 3), &Rc::default()).unwrap();
    assert!(
        DataKey::generated(dek(), wrapped(), &EncryptionContext::default(), &Rc::default())
            .unwrap()
            .index_key()
            .is_none()
    );
    let made = data_key.index_key().unwrap();
    assert_eq!((made.name(), made.version()), ("a", 3));
    // What is in the table is a stub of it.
    let value = seal_with(&data_key, ValueType::Text, &[1; 24], None, b"");
    assert_eq!(open_with(&"07".repeat(32), &value, None), Ok(vec![]));
    let stub = Envelope::parse(&value).unwrap().head.dek_stub();
    let head = Envelope::parse(&stub).unwrap().head;
    let context = head.encryption_context().unwrap();
    let derived = DerivedKeys::of(dek(), &context, &Rc::default());
    let opened = DataKey::unwrapped(derived, wrapped(), context, &head).unwrap();
    let value = Searchable::bigint(1);
    assert_eq!(opened.index_key().unwrap().equality_token(&value), made.equality_token(&value));
}

/// RFC 4231, sections 4.2 to 4.8, without the truncated one.
#[test]
fn hmac_is_that_of_rfc_4231() {
    let ascending: Vec<u8> = (1..=25).collect();
    for (key, data, tag) in [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (ascending, vec![0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (vec![0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
        (vec![0xaa; 131], b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".to_vec(), "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ] {
        let hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&data);
        assert_eq!(hex::encode(hmac.finalize().into_bytes()), tag);
    }
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 5869, appendices A.1 to A.3.
#[test]
fn hkdf_is_that_of_rfc_5869() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    for (ikm, salt, info, okm) in [
        (
            vec![0x0b; 22],
            range(0, 0x0c),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let mut output = vec![0; okm.len() / 2];
        Salt::new(HKDF_SHA256, &salt)
            .extract(&ikm)
            .expand(&[&info], Bytes(output.len()))
            .unwrap()
            .fill(&mut output)
            .unwrap();
        assert_eq!(hex::encode(output), okm);
    }
}
