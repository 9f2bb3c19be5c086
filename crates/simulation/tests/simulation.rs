//! Histories without a violation, and histories in which a planted mistake is found.
//!
//! `SIM_SEED=N` replays one history; `SIM_STEPS=N` and `SIM_HISTORIES=N` say how long they are, and how many.

use std::time::Instant;

use envelope_simulation::{Mistake, Report, run};

const STEPS: u64 = 500_000;
const HISTORIES: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn no_history_violates_an_invariant() {
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_HISTORIES").unwrap_or(HISTORIES),
    };
    let (started, mut total) = (Instant::now(), Report::default());
    for seed in seeds {
        match run(seed, steps, None) {
            Ok(report) => total.add(&report),
            Err(violation) => panic!("{violation}"),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{total:?}\n{:.0} steps a second, {seconds:.1} s", total.steps as f64 / seconds);
    if steps >= STEPS {
        let met = [
            total.sealed,
            total.opened,
            total.stale,
            total.failed,
            total.refusals,
            total.flushes,
            total.refreshes,
            total.out_of_calls,
            total.not_allowed,
        ];
        assert!(met.iter().all(|count| *count > 0), "a history that does not meet all of these proves little");
    }
}

/// Each by the first seed, of those that the histories above have, that finds it.
#[test]
fn each_planted_mistake_is_found() {
    for (mistake, seed, what) in [
        (Mistake::ServeAfterRefusal, 0, "serves after a refusal"),
        (Mistake::MissFlush, 0, "a flush was not heeded"),
        (Mistake::DoubleBudget, 0, "calls has made"),
        (Mistake::StalePastBound, 0, "past ttl and stale time"),
        (Mistake::OtherAllowedList, 0, "not in the allowed list"),
    ] {
        let violation = run(seed, STEPS, Some(mistake)).expect_err("the mistake is found");
        println!("{mistake:?}: {violation}");
        assert!(violation.what.contains(what), "{mistake:?}: {violation}");
        assert_eq!(run(seed, STEPS, Some(mistake)), Err(violation), "the same history again");
        assert!(run(seed, 20_000, None).is_ok());
    }
}
