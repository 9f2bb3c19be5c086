//! Many servers that start together and are at rest: how many calls KMS gets, and whether they come in step.

use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::Limits;
use envelope_core::cache::bounded::Bounds;
use envelope_core::cipher::message_keys::MessageKeys;
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::policy::note::Note;
use envelope_core::policy::{Epochs, Policy, StatementId, Step, Surroundings};
use envelope_core::request::{ConsentAge, OpeningGrant, Reply, Request};
use envelope_core::value::DataKey;
use fastrand::Rng;

use crate::kms::KEYS;

/// A fleet at rest: each session uses each of the data keys now and then.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Servers, all of which begin within a second.
    pub servers: usize,
    /// Sessions of each.
    pub sessions: usize,
    /// Data keys of each, which are no other server's.
    pub data_keys: usize,
    /// How long a consent lasts.
    pub cache_ttl: Duration,
    /// How often a session uses a data key.
    pub every: Duration,
}

/// What KMS saw.
pub struct Load {
    /// Decrypts in each second.
    pub seconds: Vec<u32>,
    /// In all of the time but the first `cache_ttl`.
    pub decrypts_per_data_key_and_hour: f64,
}

struct World {
    now: Instant,
    ttl: Duration,
}

impl Surroundings for World {
    fn now(&self) -> Instant {
        self.now
    }
    fn coarse_now(&self) -> Instant {
        self.now
    }
    fn epochs(&self) -> Option<Epochs> {
        Some(Epochs::default())
    }
    fn ttl(&self) -> Duration {
        self.ttl
    }
    fn limits(&self) -> Limits {
        Limits {
            bounds: Bounds { entries: usize::MAX, bytes: usize::MAX },
            ttl: self.ttl,
            stale_if_unreachable: Duration::ZERO,
            max_age: Duration::from_secs(86_400),
            max_uses: None,
            max_bytes: None,
        }
    }
    fn call_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn allowed_keys_generation(&self) -> u64 {
        0
    }
    fn allowed_keys(&self) -> AllowedKeys {
        AllowedKeys::all()
    }
    fn max_calls(&self) -> Option<u64> {
        None
    }
    fn statement(&self) -> StatementId {
        StatementId::default()
    }
}

/// A request of the background, with its answer.
type Answered = Reply;

/// Lets a fleet run for so long. `seed` chooses the sessions' moments.
///
/// # Panics
/// If the policy does what it may not.
#[must_use]
pub fn run(fleet: Fleet, time: Duration, seed: u64) -> Load {
    let mut seconds = vec![0; time.as_secs() as usize + 1];
    let mut random = Rng::with_seed(seed);
    for server in 0..fleet.servers {
        run_server(fleet, time, server as u64, &mut random, &mut seconds);
    }
    let settled = &seconds[fleet.cache_ttl.as_secs() as usize..];
    let calls: u64 = settled.iter().map(|calls| u64::from(*calls)).sum();
    let hours = settled.len() as f64 / 3_600.0;
    let data_keys = (fleet.servers * fleet.data_keys) as f64;
    Load { decrypts_per_data_key_and_hour: calls as f64 / data_keys / hours, seconds }
}

fn run_server(fleet: Fleet, time: Duration, server: u64, random: &mut Rng, seconds: &mut [u32]) {
    let start = Instant::now();
    let mut world = World { now: start, ttl: fleet.cache_ttl };
    let values: Vec<Vec<u8>> = (0..fleet.data_keys).map(|number| value(server, number)).collect();
    // When the broker was last handed each of them out.
    let mut consents: Vec<Option<Instant>> = vec![None; fleet.data_keys];
    let mut sessions: Vec<Policy<Answered>> =
        (0..fleet.sessions).map(|_| Policy::new(&world, random.u64(..), server)).collect();
    let offset = Duration::from_millis(random.u64(..1_000));
    let rounds = (time.as_secs_f64() / fleet.every.as_secs_f64()) as u32;
    for round in 0..rounds {
        world.now = start + offset + fleet.every * round;
        let second = (world.now - start).as_secs() as usize;
        let mut ask = |number: usize, request: &Request, now: Instant| -> Reply {
            let Request::OpeningKey { terms, wrapped, .. } = request else { unreachable!("only values are opened") };
            let age = consents[number].map(|asked| now - asked).filter(|age| *age < terms.fresh_for);
            if age.is_none() {
                consents[number] = Some(now);
                if let Some(calls) = seconds.get_mut(second) {
                    *calls += 1;
                }
            }
            let consent = ConsentAge {
                age: age.unwrap_or_default(),
                is_stale: false,
                took_call: age.is_none(),
                calls: age.is_none().into(),
            };
            Reply::Opening(OpeningGrant { dek: dek(server, number), key_id: wrapped.key_id.clone(), consent })
        };
        for policy in &mut sessions {
            for (number, value) in values.iter().enumerate() {
                let head = Envelope::parse(value).expect("a value").head;
                let mut step = policy.open(&head, &world).expect("nothing is refused");
                loop {
                    step = match step {
                        Step::Ready(_) => break,
                        Step::Ask(asked) => {
                            let reply = ask(number, asked.request(), world.now);
                            policy.answered(asked, Ok(reply), &world).expect("nothing is refused")
                        }
                        Step::Await(..) => unreachable!("requests are answered at once"),
                    };
                }
                for note in policy.take_notes() {
                    if let Note::Refresh(refresh) = note {
                        let reply = ask(number, refresh.request(), world.now);
                        policy.refreshed(refresh, Some(Ok(reply)), &world);
                    }
                }
            }
        }
    }
}

fn dek(server: u64, number: usize) -> Dek {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&server.to_be_bytes());
    bytes[8..16].copy_from_slice(&(number as u64).to_be_bytes());
    Dek::take_from(&mut bytes).expect("32 bytes")
}

fn value(server: u64, number: usize) -> Vec<u8> {
    let wrapped_dek = [server.to_be_bytes(), (number as u64).to_be_bytes()].concat();
    let wrapped = WrappedKey { provider: Provider::AwsKms, key_id: KEYS[0].to_owned(), wrapped_dek };
    let keys: Rc<MessageKeys> = Rc::default();
    let data_key =
        DataKey::generated(dek(server, number), wrapped, &EncryptionContext::default(), &keys).expect("small");
    let mut bytes = vec![0; data_key.value_bytes(0)];
    data_key.seal(ValueType::Text, &[0; 24], None, &[], &mut bytes);
    bytes
}
