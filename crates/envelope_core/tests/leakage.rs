//! What whoever steals tokens learns, by attacks on real distributions: the first and last names of the US census of 1990, which
//! the Python package `names` ships and `scripts/setup.sh test` installs. The figures are those of docs/SEARCH.md.
//!
//! The thief knows the distribution exactly, and has the table; he has no key, and may call no function.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::{env, fs};

use envelope_core::context::EncryptionContext;
use envelope_core::keys::Dek;
use envelope_core::search::{Bucketed, Buckets, IndexKey, Plan, PrefixLengths, Searchable, TokenBits, ValueKind};

const ROWS: usize = 100_000;
const SEED: u64 = 16;

/// SplitMix64 (Steele, Lea, Flood 2014): the same rows in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Values and their shares, the most frequent one first.
struct Distribution<T> {
    values: Vec<T>,
    cumulated: Vec<f64>,
}

impl<T: Clone + Ord> Distribution<T> {
    fn new(mut shares: Vec<(T, f64)>) -> Self {
        shares.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let cumulated = shares
            .iter()
            .scan(0.0, |sum, (_, share)| {
                *sum += share / total;
                Some(*sum)
            })
            .collect();
        Self { values: shares.into_iter().map(|(value, _)| value).collect(), cumulated }
    }

    fn rows(&self) -> Vec<T> {
        let mut random = Random(SEED);
        let draw = |fraction| self.cumulated.partition_point(|sum| *sum <= fraction).min(self.values.len() - 1);
        (0..ROWS).map(|_| self.values[draw(random.fraction())].clone()).collect()
    }
}

fn census(files: &[&str]) -> Distribution<String> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("../../target"), PathBuf::from);
    let libraries = fs::read_dir(target.join("venv/lib")).expect("run scripts/setup.sh test");
    let packages: Vec<_> = libraries.map(|entry| entry.unwrap().path().join("site-packages/names")).collect();
    let package = packages.iter().find(|path| path.exists()).expect("run scripts/setup.sh test");
    let mut shares = BTreeMap::new();
    for file in files {
        for line in fs::read_to_string(package.join(file)).unwrap().lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            *shares.entry(fields[0].to_owned()).or_default() += fields[1].parse::<f64>().unwrap();
        }
    }
    Distribution::new(shares.into_iter().collect())
}

fn key() -> IndexKey {
    let context = r#"{"purpose": "envelope_pg index key", "name": "leakage", "version": "1"}"#;
    let dek = Dek::take_from(&mut [7; 32]).unwrap();
    IndexKey::of(&dek, &EncryptionContext::from_json(context).unwrap()).unwrap()
}

/// Frequency analysis: the token in the n-th most rows stands for the n-th most frequent value. The share of rows whose value is
/// then known.
fn recovered<T: PartialEq + Clone + Ord, K: Hash + Eq + Ord + Clone>(
    known: &Distribution<T>,
    rows: &[T],
    tokens: &[K],
) -> f64 {
    let mut counts: HashMap<&K, usize> = HashMap::new();
    tokens.iter().for_each(|token| *counts.entry(token).or_default() += 1);
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
    let guesses: HashMap<_, _> = ranked.iter().map(|(token, _)| *token).zip(&known.values).collect();
    let right = rows.iter().zip(tokens).filter(|(value, token)| guesses.get(token) == Some(value));
    right.count() as f64 / rows.len() as f64
}

/// The lines of the table in docs/SEARCH.md that an attack makes.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, what: &str, share: f64) {
        self.0.push(format!("| {what} | {:.1} % |", share * 100.0));
    }

    fn check(self) {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SEARCH.md");
        let page = fs::read_to_string(page).unwrap();
        let missing: Vec<_> = self.0.iter().filter(|line| !page.contains(*line)).collect();
        assert!(missing.is_empty(), "docs/SEARCH.md has other lines than {missing:#?}");
    }
}

#[test]
fn first_names() {
    let known = census(&["dist.female.first", "dist.male.first"]);
    let rows = known.rows();
    let distinct = rows.iter().collect::<HashSet<_>>().len();
    let key = key();
    let value = |row: &String| Searchable::text(row.as_bytes().to_vec());
    let blind = recovered(&known, &rows, &vec![0; ROWS]);
    let mut lines = Lines::default();
    lines.add("first names: no token (the most frequent name is guessed)", blind);
    let full: Vec<_> = rows.iter().map(|row| key.equality_token(&value(row))).collect();
    let by_full = recovered(&known, &rows, &full);
    // Deterministic encryption shows the same: which rows are equal.
    assert!((by_full - recovered(&known, &rows, &rows)).abs() < 0.01, "but for how ties are broken");
    lines.add("first names: full token, or deterministic encryption", by_full);
    let (least, most) = Plan::new(distinct as u64, ROWS as u64, None).unwrap().bits.unwrap();
    let mut shares = Vec::new();
    for bits in [most, least] {
        let token_bits = TokenBits::new(bits.into()).unwrap();
        let tokens: Vec<_> = rows.iter().map(|row| key.short_token(&value(row), token_bits)).collect();
        shares.push(recovered(&known, &rows, &tokens));
        lines.add(&format!("first names: token of {bits} bits"), shares[shares.len() - 1]);
    }
    lines.check();
    assert!(by_full > 4.0 * blind && shares.iter().all(|share| *share < 2.0 * blind));
}

#[test]
fn last_names_by_prefix() {
    let known = census(&["dist.all.last"]);
    let rows = known.rows();
    let lengths = PrefixLengths::new(&[3, 5]).unwrap();
    let key = key();
    let mut lines = Lines::default();
    for (at, length) in [(0, 3), (1, 5)] {
        let cut = |name: &String| name.chars().take(length).collect::<String>();
        // The place in the array says the length.
        let long: Vec<_> = rows.iter().filter(|row| row.len() >= length).collect();
        let prefixes: Vec<_> = long.iter().map(|row| cut(row)).collect();
        let tokens: Vec<_> = long.iter().map(|row| key.prefix_tokens(row, &lengths).nth(at).unwrap()).collect();
        let mut shares: BTreeMap<String, f64> = BTreeMap::new();
        let mut before = 0.0;
        for (value, sum) in known.values.iter().zip(&known.cumulated) {
            if value.len() >= length {
                *shares.entry(cut(value)).or_default() += sum - before;
            }
            before = *sum;
        }
        let known = Distribution::new(shares.into_iter().collect());
        lines.add(&format!("last names: prefix of {length} characters"), recovered(&known, &prefixes, &tokens));
    }
    lines.check();
}

/// Birth dates from 1930 to 2009, of which later ones are more frequent: from 1 to 2, linearly.
#[test]
fn birth_dates() {
    const DAYS: i64 = 29_220;
    let known = Distribution::new((0..DAYS).map(|day| (day, 1.0 + day as f64 / DAYS as f64)).collect());
    let rows = known.rows();
    let key = key();
    // Order-preserving or order-revealing encryption: the rank of a row among all says its quantile (Naveed, Kamara, Wright 2015).
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    let by_day: Vec<f64> = (0..=DAYS)
        .map(|day| {
            let share = day as f64 / DAYS as f64;
            (share + share * share / 2.0) / 1.5
        })
        .collect();
    let guess = |rank: f64| by_day.partition_point(|sum| *sum <= rank) as i64 - 1;
    let within = |days: i64| {
        let right = |row: &&i64| {
            let (first, last) = (sorted.partition_point(|day| day < *row), sorted.partition_point(|day| day <= *row));
            (guess((first + last) as f64 / 2.0 / ROWS as f64) - **row).abs() <= days
        };
        rows.iter().filter(right).count() as f64 / ROWS as f64
    };
    let by_order = within(30);
    let mut lines = Lines::default();
    lines.add("birth dates: order-preserving encryption, to 30 days", by_order);
    let buckets = Buckets::new(0, 30).unwrap();
    let numbers: Vec<_> = rows.iter().map(|day| buckets.number(*day).unwrap()).collect();
    let tokens: Vec<_> =
        numbers.iter().map(|number| key.bucket_token(Bucketed::new(ValueKind::Date, *number))).collect();
    let known =
        Distribution::new((0..DAYS / 30).map(|number| (number, 1.0 + number as f64 * 30.0 / DAYS as f64)).collect());
    let by_bucket = recovered(&known, &numbers, &tokens);
    lines.add("birth dates: bucket of 30 days, to the bucket", by_bucket);
    let full: Vec<_> = rows.iter().map(|day| key.equality_token(&Searchable::date(*day as i32))).collect();
    let known = Distribution::new((0..DAYS).map(|day| (day, 1.0 + day as f64 / DAYS as f64)).collect());
    lines.add("birth dates: full token, to the day", recovered(&known, &rows, &full));
    lines.check();
    assert!(by_order > 10.0 * by_bucket);
}
