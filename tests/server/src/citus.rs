//! A coordinator and two workers of Citus, where the PostgreSQL of `PG_CONFIG` has it; elsewhere a line says that tests were skipped.

use std::io::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use testkit::emulator::REGION;
use testkit::install::Installation;
use testkit::{Client, Cluster, Emulator, FaultProxy, Session};

/// The coordinator is the first one. Each has a way of its own to KMS.
pub struct Nodes {
    /// Servers, and what stands between them and KMS.
    pub nodes: Vec<(Cluster, FaultProxy)>,
    /// A key.
    pub key_id: String,
}

/// None, and a line about it, where there is no Citus.
static SHARED: LazyLock<Option<Mutex<Nodes>>> = LazyLock::new(|| {
    if !Installation::current().has("citus") {
        let line = "tests of Citus were skipped: the PostgreSQL of PG_CONFIG has no extension citus";
        // Not with println, which is not shown for a test that passes.
        writeln!(std::io::stdout(), "{line}").expect("stdout can be written");
        return None;
    }
    Some(Mutex::new(Nodes::start()))
});

/// The nodes of this test process; a test that gets none ends.
pub fn nodes() -> Option<MutexGuard<'static, Nodes>> {
    let nodes = SHARED.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    nodes.nodes.iter().for_each(|(_, proxy)| proxy.reset_counts());
    Some(nodes)
}

impl Nodes {
    fn start() -> Self {
        let emulator = Emulator::shared();
        let nodes: Vec<_> = (0..3)
            .map(|_| {
                let proxy = FaultProxy::start(emulator.address());
                let cluster = Cluster::builder()
                    .setting("shared_preload_libraries", "citus, envelope_pg")
                    .setting("wal_level", "logical")
                    .setting("max_connections", "200")
                    .setting("max_prepared_transactions", "200")
                    .setting("citus.node_conninfo", "sslmode=disable")
                    .setting("citus.shard_count", "6")
                    .setting("envelope_pg.kms_endpoint_url", &proxy.url())
                    .setting("envelope_pg.kms_region", REGION)
                    .start();
                cluster.sql("CREATE EXTENSION citus");
                (cluster, proxy)
            })
            .collect();
        let ports: Vec<u16> = nodes.iter().map(|(cluster, _)| cluster.port()).collect();
        let mut client = nodes[0].0.connect("postgres", "postgres");
        client.run(&format!("SELECT citus_set_coordinator_host('127.0.0.1', {})", ports[0]));
        for port in &ports[1..] {
            client.run(&format!("SELECT citus_add_node('127.0.0.1', {port})"));
        }
        // Citus makes it on the workers, too.
        client.run("CREATE EXTENSION envelope_pg");
        Self { nodes, key_id: emulator.create_key().arn }
    }

    /// A session of the superuser on the coordinator.
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// A session of the superuser on a node.
    pub fn connect_to(&self, node: usize) -> Client {
        self.nodes[node].0.connect("postgres", "postgres")
    }

    /// A session on the coordinator of a role that rotates. Citus makes roles and their memberships on all nodes.
    pub fn rotator(&self, tables: &str) -> Client {
        let mut client = self.connect();
        if !client.one::<bool>("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rotator')", &[]) {
            client.run("CREATE ROLE rotator LOGIN; GRANT envelope_rotate TO rotator");
        }
        client.run(&format!("GRANT SELECT, UPDATE ON {tables} TO rotator"));
        self.nodes[0].0.connect("rotator", "postgres")
    }

    /// How often each node has asked KMS for an operation.
    pub fn calls(&self, operation: &str) -> Vec<usize> {
        self.nodes.iter().map(|(_, proxy)| proxy.calls(operation)).collect()
    }

    /// A distributed table of `rows` values, `per_dek` under each data key.
    pub fn table(&self, name: &str, rows: i32, per_dek: i32) {
        let key_id = &self.key_id;
        self.connect().run(&format!(
            "SET envelope_pg.dek_max_uses = {per_dek};
             CREATE TABLE {name} (id int PRIMARY KEY, note text, n int NOT NULL DEFAULT 0, value bytea);
             SELECT create_distributed_table('{name}', 'id');
             INSERT INTO {name} SELECT i, 'text ' || i, 0, env_encrypt('text ' || i, '{key_id}') FROM generate_series(1, {rows}) AS i;
             SELECT env_cache_flush()"
        ));
    }
}
