//! A cluster with the extension and a key, in one line.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use postgres::Client;

use crate::builder::ClusterBuilder;
use crate::cluster::Cluster;
use crate::emulator::{Emulator, KmsKey, REGION};
use crate::install::Installation;
use crate::proxy::FaultProxy;
use crate::session::Session;

/// The key file of the local provider, beside the data directory.
const KEYRING: &str = "keyring.json";

/// A cluster with the extension in the database `postgres`, and a key.
pub struct Fixture {
    /// The server.
    pub cluster: Cluster,
    /// The proxy between the server and the emulator. It counts nothing where the key is local.
    pub proxy: FaultProxy,
    /// What to call the key in SQL: a key ARN, or `local:dev`.
    pub key_id: String,
}

/// A fixture for all tests of a file, made by this expression when the first of them calls `fixture()`; they take it one after
/// the other, with no fault and no count left by the test before.
#[macro_export]
macro_rules! shared_fixture {
    ($make:expr) => {
        fn fixture() -> std::sync::MutexGuard<'static, $crate::Fixture> {
            static SHARED: $crate::fixture::Shared = std::sync::LazyLock::new(|| std::sync::Mutex::new($make));
            $crate::fixture::take(&SHARED)
        }
    };
}

/// What [`shared_fixture`](crate::shared_fixture) keeps.
pub type Shared = LazyLock<Mutex<Fixture>>;

/// Takes a shared fixture.
pub fn take(shared: &'static Shared) -> MutexGuard<'static, Fixture> {
    // A test that failed with it does not make it worse for the next one.
    let fixture = shared.lock().unwrap_or_else(PoisonError::into_inner);
    fixture.proxy.clear();
    fixture.proxy.reset_counts();
    fixture
}

impl Fixture {
    /// A key of the KMS emulator, behind the proxy. Each session calls KMS itself.
    pub fn kms() -> Self {
        Self::kms_with(Cluster::builder())
    }

    /// As [`Fixture::kms`], with more settings of the server.
    pub fn kms_with(builder: ClusterBuilder) -> Self {
        Self::with_broker_and(builder.setting("envelope_pg.broker", "off"))
    }

    /// A key of the KMS emulator, behind the proxy. The sessions share data keys through the broker.
    pub fn with_broker() -> Self {
        Self::with_broker_and(Cluster::builder())
    }

    /// As [`Fixture::with_broker`], with more settings of the server.
    pub fn with_broker_and(builder: ClusterBuilder) -> Self {
        let emulator = Emulator::shared();
        let proxy = FaultProxy::start(emulator.address());
        let cluster = builder
            .setting("envelope_pg.kms_endpoint_url", &proxy.url())
            .setting("envelope_pg.kms_region", REGION)
            .start();
        let key_id = emulator.create_key().arn;
        let fixture = Self { cluster, proxy, key_id };
        fixture.create_extension();
        fixture
    }

    /// A key of the local provider. Each session reads the key file itself.
    pub fn local() -> Self {
        Self::local_with(Cluster::builder())
    }

    /// As [`Fixture::local`], with more settings of the server.
    pub fn local_with(builder: ClusterBuilder) -> Self {
        let proxy = FaultProxy::start(([127, 0, 0, 1], 9).into());
        let builder = builder.setting("envelope_pg.broker", "off");
        let cluster = builder.path_setting("envelope_pg.local_keyring", KEYRING).start();
        let fixture = Self { cluster, proxy, key_id: "local:dev".into() };
        fixture.create_extension();
        fixture.cluster.sql("SELECT env_local_create_key('dev')");
        fixture
    }

    /// The key file of the local provider.
    pub fn keyring(&self) -> std::path::PathBuf {
        self.cluster.directory().join(KEYRING)
    }

    /// A new session of the superuser.
    pub fn connect(&self) -> Client {
        self.cluster.connect("postgres", "postgres")
    }

    /// A new session of a role that is made if it is missing, with the given memberships.
    pub fn connect_as(&self, role: &str, groups: &[&str]) -> Client {
        let mut client = self.connect();
        if !client.one::<bool>("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", &[&role]) {
            client.run(&format!("CREATE ROLE {role} LOGIN"));
        }
        for group in groups {
            client.run(&format!("GRANT {group} TO {role}"));
        }
        self.cluster.connect(role, "postgres")
    }

    /// A new key of the emulator.
    pub fn new_key(&self) -> KmsKey {
        Emulator::shared().create_key()
    }

    fn create_extension(&self) {
        assert!(Installation::current().has_extension(), "envelope_pg is not installed: run `make install`");
        // As from PostgreSQL 15 on; else it warns.
        self.cluster.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        self.cluster.sql("CREATE EXTENSION envelope_pg");
    }
}
