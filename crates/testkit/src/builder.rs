//! What a cluster is set to before it starts, and the template that it is copied from.

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::cluster::Cluster;
use crate::install::Installation;
use crate::{process, scratch};

/// initdb takes a second, so it runs once per test process and each cluster is a copy.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = scratch::directory();
    let mut initdb = process::as_server(Installation::current().program("initdb"));
    initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres", "-D"]);
    initdb.arg(&path);
    process::run(initdb);
    path
});

/// What every cluster is set to. Durability is of no use to a server that is thrown away.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "16MB"),
    ("max_connections", "50"),
    ("log_error_verbosity", "verbose"),
    ("log_line_prefix", "%m [%p] %u@%d "),
    ("timezone", "UTC"),
];

/// The environment of the server: credentials that the emulator does not check, and no way to others.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A cluster that is about to start.
#[derive(Clone, Default)]
pub struct ClusterBuilder {
    settings: Vec<(String, String)>,
    paths: Vec<(String, String)>,
    environment: Vec<(String, Option<String>)>,
    /// Directories, each in the one before, that the data directory is in.
    nesting: PathBuf,
}

impl Cluster {
    /// A cluster with other settings than the usual ones.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }
}

impl ClusterBuilder {
    /// Adds a line to postgresql.conf.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// As [`ClusterBuilder::setting`], with the path of a file in [`Cluster::directory`].
    #[must_use]
    pub fn path_setting(mut self, name: &str, file: &str) -> Self {
        self.paths.push((name.into(), file.into()));
        self
    }

    /// Puts the data directory deeper, into directories with these names.
    #[must_use]
    pub fn nested_in(mut self, names: &[String]) -> Self {
        self.nesting = names.iter().collect();
        self
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Leaves out a variable that the server's environment usually has.
    #[must_use]
    pub fn without_environment(mut self, name: &str) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Makes the cluster and starts it.
    pub fn start(self) -> Cluster {
        let directory = scratch::directory();
        let mut copy = process::as_server("cp");
        let data_directory = directory.join(&self.nesting).join("data");
        let mut make = process::as_server("mkdir");
        make.arg("-p").arg(directory.join(&self.nesting));
        process::run(make);
        copy.arg("-a").arg(&*TEMPLATE).arg(&data_directory);
        process::run(copy);
        let settings = SETTINGS.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let path = |(name, file): (String, String)| (name, directory.join(file).display().to_string());
        let lines: Vec<_> = settings.chain(self.settings).chain(self.paths.into_iter().map(path)).collect();
        let mut environment: Vec<(String, String)> =
            ENVIRONMENT.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        for (name, value) in self.environment {
            environment.retain(|(known, _)| *known != name);
            environment.extend(value.map(|value| (name, value)));
        }
        Cluster::start_in(directory, data_directory, &lines, environment)
    }
}
