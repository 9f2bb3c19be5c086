//! Roles with different `allowed_keys` over one broker, which holds the data keys of all.

use testkit::{Client, Emulator, Fixture, Session};

struct Roles {
    fixture: Fixture,
    keys: [String; 2],
    sessions: [Client; 2],
    values: [Vec<u8>; 2],
}

const GROUPS: &[&str] = &["envelope_encrypt", "envelope_decrypt", "envelope_rotate"];

/// Two roles, each with a key of its own, whose data keys are in the broker.
fn two_roles() -> Roles {
    let fixture = Fixture::with_broker();
    let keys = [fixture.new_key().arn, fixture.new_key().arn];
    for (role, key) in ["role_one", "role_two"].iter().zip(&keys) {
        fixture.connect_as(role, GROUPS);
        fixture.cluster.sql(&format!("ALTER ROLE {role} SET envelope_pg.allowed_keys = '{key}'"));
    }
    let sessions = ["role_one", "role_two"].map(|role| fixture.cluster.connect(role, "postgres"));
    let mut all = fixture.connect();
    // The superuser has them made and read, so that the broker has them.
    let values = [0, 1].map(|number| all.encrypt("a text", &keys[number]));
    assert_eq!(fixture.kms_calls(), (2, 0));
    Roles { fixture, keys, sessions, values }
}

#[test]
fn neither_can_use_the_key_of_the_other() {
    let Roles { fixture, keys, mut sessions, values } = two_roles();
    for (own, session) in sessions.iter_mut().enumerate() {
        let other = 1 - own;
        for _ in 0..2 {
            session.fail_to_decrypt(&values[other]).with("42501").says("allowed_keys");
            session.fail_to_encrypt(&keys[other]).with("42501").says("allowed_keys");
            session.fail("SELECT env_rotate_dek($1)", &[&keys[other]]).with("42501").says("allowed_keys");
            // And its own serves, between two refusals, too.
            assert_eq!(session.decrypt(&values[own]), "a text");
            session.encrypt("a text", &keys[own]);
        }
        let failed: i64 = session.one("SELECT failed FROM env_warm(ARRAY[$1::bytea, $2])", &[&values[0], &values[1]]);
        assert_eq!(failed, 1, "the other's");
        session.fail_to_decrypt(&values[other]).with("42501");
    }
    assert_eq!(fixture.kms_calls(), (2, 0), "KMS was not asked about keys that are not allowed");
}

/// The list names an alias, which the broker knows under the key that it pointed to.
#[test]
fn an_alias_does_not_lead_around_the_list() {
    let Roles { fixture, keys, mut sessions, values } = two_roles();
    let emulator = Emulator::shared();
    let other_key = fixture.new_key();
    emulator.create_alias("alias/broker-allowed", &other_key);
    fixture.connect().encrypt("a text", "alias/broker-allowed");
    // The alias, but not the key behind it.
    fixture
        .cluster
        .sql(&format!("ALTER ROLE role_one SET envelope_pg.allowed_keys = 'alias/broker-allowed, {}'", keys[0]));
    sessions[0] = fixture.cluster.connect("role_one", "postgres");
    sessions[0].fail_to_encrypt("alias/broker-allowed").with("42501").says(&other_key.arn);
    assert_eq!(sessions[0].decrypt(&values[0]), "a text");
}

/// A value that claims an allowed key, with the wrapped data key of a forbidden one that the broker holds.
#[test]
fn a_forged_key_reference_does_not_lead_around_it() {
    let Roles { fixture, mut sessions, values, .. } = two_roles();
    // The same bytes but for the 16 bytes of the key's uuid.
    let uuid = |value: &[u8]| {
        let arn: String = fixture.connect().one("SELECT env_key_id($1)", &[&value]);
        let hex = arn.rsplit('/').next().expect("a key ARN").replace('-', "");
        (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect::<Vec<u8>>()
    };
    let (own, other) = (uuid(&values[0]), uuid(&values[1]));
    let at = values[1].windows(16).position(|bytes| bytes == other).expect("the value names its key");
    let mut forged = values[1].clone();
    forged[at..at + 16].copy_from_slice(&own);
    let failure = sessions[0].fail_to_decrypt(&forged);
    assert!(["42501", "22000"].contains(&failure.sqlstate.as_str()), "{failure:?}");
    assert_eq!(sessions[1].decrypt(&values[1]), "a text", "the broker's entry is well");
}

/// The grants are PostgreSQL's: a role that may not decrypt gets nothing out of a warm broker.
#[test]
fn a_warm_broker_is_no_grant() {
    let Roles { fixture, keys, values, .. } = two_roles();
    let mut writer = fixture.connect_as("only_writes", &["envelope_encrypt"]);
    writer.encrypt("a text", &keys[0]);
    writer.fail_to_decrypt(&values[0]).with("42501").says("permission denied for function");
    let mut nobody = fixture.connect_as("nobody_of_ours", &[]);
    for statement in [
        "SELECT env_rotate_dek('alias/x')",
        "SELECT env_broker_stop()",
        "SELECT env_cache_flush(true)",
        "SELECT env_cache_flush()",
        "SELECT env_stat_reset()",
        "SELECT envelope_internal.stat_kms_json()",
        "SELECT envelope_internal.stat_broker_json()",
        "SELECT envelope_internal.stat_cache_json()",
        "SELECT * FROM env_stat_kms",
        "SELECT * FROM env_stat_broker",
        "SELECT * FROM env_stat_cache",
        "SELECT env_warm('{}'::bytea[])",
    ] {
        nobody.fail(statement, &[]).with("42501");
    }
}
