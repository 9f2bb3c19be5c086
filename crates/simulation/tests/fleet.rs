//! A thousand servers that start in the same second, and then are at rest.

use std::time::Duration;

use envelope_simulation::fleet::{Fleet, run};

const TTL: Duration = Duration::from_secs(900);

fn fleet(servers: usize, sessions: usize) -> Fleet {
    Fleet { servers, sessions, data_keys: 5, cache_ttl: TTL, every: Duration::from_secs(5) }
}

/// The largest number of calls in a second of some time.
fn peak(seconds: &[u32]) -> u32 {
    seconds.iter().copied().max().unwrap_or_default()
}

#[test]
fn a_thousand_servers_do_not_march_in_step() {
    let servers = 1_000;
    let hours = 6;
    let load = run(fleet(servers, 2), Duration::from_secs(hours * 3_600), 1);
    let rate = load.decrypts_per_data_key_and_hour;
    let (first, last) = (peak(&load.seconds[..60]), peak(&load.seconds[load.seconds.len() - 3_600..]));
    let total: u64 = load.seconds[load.seconds.len() - 3_600..].iter().map(|calls| u64::from(*calls)).sum();
    println!(
        "{servers} servers of 5 data keys: {total} Decrypts in the last of {hours} hours, {rate:.2} a data key and hour"
    );
    println!(
        "calls in a second: {first} at the start, {last} at most in the last hour, {:.1} on average",
        total as f64 / 3_600.0
    );
    assert_eq!(first as usize, servers * 5, "they do start together");
    // docs/guide/capacity.md, "The model": between 85 and 92 % of cache_ttl.
    assert!((3_600.0 / (0.93 * 900.0)..=3_600.0 / (0.85 * 900.0)).contains(&rate), "{rate}");
    assert!(last < first / 4, "{first} {last}");
}

#[test]
fn many_sessions_of_a_server_ask_as_often_as_one() {
    let of = |sessions| run(fleet(20, sessions), Duration::from_secs(4 * 3_600), 2).decrypts_per_data_key_and_hour;
    let (one, many) = (of(1), of(40));
    println!("{one:.2} Decrypts a data key and hour with one session, {many:.2} with 40");
    assert!(many <= one * 1.06, "{one} {many}");
}
