//! Where PostgreSQL's programs are: `PG_CONFIG`, or the newest server under /usr/lib/postgresql.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static INSTALLATION: LazyLock<Installation> = LazyLock::new(Installation::find);

/// One PostgreSQL installation, as its pg_config describes it.
pub struct Installation {
    programs: PathBuf,
    shared_files: PathBuf,
    version: u32,
}

impl Installation {
    /// The installation that every test of this process uses.
    pub fn current() -> &'static Self {
        &INSTALLATION
    }

    /// The path of one of PostgreSQL's programs, for example `initdb`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The major version, for example 15.
    pub fn major_version(&self) -> u32 {
        self.version
    }

    /// Whether `make install` has put the extension into this installation.
    pub fn has_extension(&self) -> bool {
        self.has("envelope_pg")
    }

    /// Whether an extension can be created in this installation.
    pub fn has(&self, extension: &str) -> bool {
        self.shared_files.join(format!("extension/{extension}.control")).exists()
    }

    fn find() -> Self {
        let pg_config = env::var_os("PG_CONFIG").map_or_else(newest_pg_config, PathBuf::from);
        let programs = PathBuf::from(ask(&pg_config, "--bindir"));
        assert!(
            programs.join("initdb").exists(),
            "no initdb in {}: install the PostgreSQL server or set PG_CONFIG",
            programs.display()
        );
        // "PostgreSQL 15.20 (Debian ...)" or "PostgreSQL 18beta1".
        let version = ask(&pg_config, "--version");
        let digits: String =
            version.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        Self {
            shared_files: PathBuf::from(ask(&pg_config, "--sharedir")),
            version: digits.parse().expect("pg_config --version names a major version"),
            programs,
        }
    }
}

fn newest_pg_config() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            (programs.join("pg_config").exists() && programs.join("initdb").exists())
                .then(|| (version, programs.join("pg_config")))
        })
        .collect();
    found.sort();
    let (_, path) = found.pop().expect("no PostgreSQL server found: set PG_CONFIG");
    path
}

fn ask(pg_config: &Path, question: &str) -> String {
    let output = Command::new(pg_config)
        .arg(question)
        .output()
        .unwrap_or_else(|error| panic!("{} does not run: {error}", pg_config.display()));
    String::from_utf8(output.stdout).expect("pg_config speaks UTF-8").trim().to_owned()
}
