//! A run and its standby: what the standby says of it, and that it waits for one that lags.

use server_tests::rotation::{intact, number_of, rotate, run_of, spawn, table, under};
use testkit::{Cluster, Fixture, Session, wait_until};

#[test]
fn a_run_waits_for_a_standby_that_lags_and_is_not_called_interrupted_there() {
    let fixture = Fixture::local_with(Cluster::builder().setting("wal_receiver_status_interval", "1s"));
    table(&fixture, "followed", 4000, 10_000);
    let mut witness = fixture.connect();
    let to_key: String = witness.one("SELECT env_local_create_key('followed')", &[]);
    let standby = fixture.cluster.standby();
    let mut follower = standby.connect("postgres", "postgres");
    wait_until("the standby follows", || {
        witness.one::<i64>("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &[]) == 1
    });
    let running =
        spawn(fixture.connect(), rotate("followed", &to_key, ", max_lag_seconds => 0.5, max_rows_per_second => 400"));
    let seen = "SELECT count(*) FROM env_rotation WHERE state = 'not known on a standby' AND rows_done > 0";
    wait_until("the standby sees the run", || follower.one::<i64>(seen, &[]) == 1);
    assert_eq!(run_of(&mut witness, "followed", "state"), "running");

    follower.run("SELECT pg_wal_replay_pause()");
    let lags = "SELECT count(*) FROM pg_stat_replication WHERE replay_lag > '2 seconds'";
    wait_until("the standby lags", || witness.one::<i64>(lags, &[]) == 1);
    // A batch that was begun before may have ended since.
    let stopped = number_of(&mut witness, "followed", "rows_done");
    witness.run("SELECT pg_sleep(2)");
    let later = number_of(&mut witness, "followed", "rows_done");
    assert_eq!((later, run_of(&mut witness, "followed", "phase").as_str()), (stopped, "throttled"));
    assert!(later < 4000, "at its rate it would have done all");
    follower.run("SELECT pg_wal_replay_resume()");
    running.join().expect("no panic").1.expect("it is done");
    assert_eq!((intact(&mut witness, "followed"), under(&mut witness, "followed", &to_key)), (4000, 4000));
}
