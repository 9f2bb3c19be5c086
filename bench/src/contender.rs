//! The ways to encrypt a column, as SQL.

/// One of them: expressions over a column `plain` (text) and a column `value` (bytea).
pub struct Contender {
    pub name: &'static str,
    /// For names of tables.
    pub slug: &'static str,
    pub encrypt: String,
    pub decrypt: String,
    /// Columns that `encrypt` needs beside `plain`; each may use the one before.
    steps: Vec<String>,
    /// It takes so long that only every so many rows are measured.
    slowness: usize,
}

/// Keys of 256 bits, for pgcrypto to use without a key derivation.
const KEY: &str = r"'\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'::bytea";
const MAC_KEY: &str = r"'\x202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f'::bytea";

/// The passthrough, envelope_pg and pgcrypto, in this order.
pub fn all(key_id: &str) -> Vec<Contender> {
    let random_iv = "gen_random_bytes(16) AS iv".to_owned();
    let cbc = format!("iv || encrypt_iv(convert_to(plain, 'UTF8'), {KEY}, iv, 'aes-cbc')");
    let open_cbc = |value: &str| {
        format!("convert_from(decrypt_iv(substr({value}, 17), {KEY}, substr({value}, 1, 16), 'aes-cbc'), 'UTF8')")
    };
    let without_mac = "substr(value, 1, length(value) - 32)";
    let verified = format!("hmac({without_mac}, {MAC_KEY}, 'sha256') = substr(value, length(value) - 31)");
    let contender = |name, slug, encrypt: &str, decrypt: &str| Contender {
        name,
        slug,
        encrypt: encrypt.into(),
        decrypt: decrypt.into(),
        steps: Vec::new(),
        slowness: 1,
    };
    vec![
        contender("passthrough", "passthrough", "convert_to(plain, 'UTF8')", "convert_from(value, 'UTF8')"),
        contender("envelope_pg", "envelope", &format!("env_encrypt(plain, '{key_id}')"), "env_decrypt(value)"),
        Contender {
            steps: vec![random_iv.clone()],
            ..contender("pgcrypto CBC, random IV", "cbc", &cbc, &open_cbc("value"))
        },
        Contender {
            steps: vec![random_iv, format!("{cbc} AS sealed")],
            ..contender(
                "pgcrypto CBC + HMAC",
                "cbc_hmac",
                &format!("sealed || hmac(sealed, {MAC_KEY}, 'sha256')"),
                &format!("CASE WHEN {verified} THEN {} END", open_cbc(without_mac)),
            )
        },
        contender(
            "pgcrypto pgp_sym, s2k-mode=0",
            "pgp_s2k0",
            "pgp_sym_encrypt(plain, 'a password', 's2k-mode=0, cipher-algo=aes256')",
            "pgp_sym_decrypt(value, 'a password')",
        ),
        Contender {
            slowness: 20,
            ..contender(
                "pgcrypto pgp_sym, defaults",
                "pgp",
                "pgp_sym_encrypt(plain, 'a password')",
                "pgp_sym_decrypt(value, 'a password')",
            )
        },
    ]
}

/// pgsodium with a raw key: XSalsa20-Poly1305, as libsodium's secretbox.
pub fn pgsodium() -> Contender {
    let open = format!("pgsodium.crypto_secretbox_open(substr(value, 25), substr(value, 1, 24), {KEY})");
    Contender {
        name: "pgsodium secretbox, raw key",
        slug: "pgsodium",
        encrypt: format!("nonce || pgsodium.crypto_secretbox(convert_to(plain, 'UTF8'), nonce, {KEY})"),
        decrypt: format!("convert_from({open}, 'UTF8')"),
        steps: vec!["pgsodium.crypto_secretbox_noncegen() AS nonce".into()],
        slowness: 1,
    }
}

impl Contender {
    /// How many of so many rows of so many bytes are measured. What is slow for the key alone is not slow for large values.
    pub fn rows(&self, rows: usize, bytes: usize) -> usize {
        if bytes <= 1 << 10 { (rows / self.slowness).max(1) } else { rows }
    }

    /// What to encrypt `FROM`: `rows` rows of `table`, which has `all_rows`. OFFSET 0 keeps a column from being evaluated
    /// once for each place that names it.
    pub fn source(&self, table: &str, rows: usize, all_rows: usize) -> String {
        let few = format!("(SELECT * FROM {table} LIMIT {rows}) AS few");
        let from = if rows == all_rows { table.to_owned() } else { few };
        self.steps.iter().fold(from, |from, step| format!("(SELECT *, {step} FROM {from} OFFSET 0) AS step"))
    }
}
