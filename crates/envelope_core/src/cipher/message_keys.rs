//! Message keys that serve many values (docs/FORMAT.md, section 9): deriving and expanding one takes longer than to seal or
//! open a short value with it.
//!
//! A writer keeps the message key of its *batch*: the values of one session and data key that share a nonce prefix. A reader
//! keeps those that it met last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::cipher::xaes::{MessageKey, NoncePrefix};

/// Values of a batch, at most. Two of them have the same nonce with a probability of 2^-96.
const BATCH_VALUES: u64 = 1 << 16;
/// Bytes of their plaintexts, at most.
const BATCH_BYTES: u64 = 64 << 30;

/// The batch that a writer is at.
pub(crate) struct Batch {
    /// The first bytes of each nonce.
    pub prefix: NoncePrefix,
    /// What the values are sealed with.
    pub key: MessageKey,
    values_left: u64,
    bytes_left: u64,
}

impl Batch {
    /// A batch with its first value.
    pub fn with(prefix: NoncePrefix, key: MessageKey, plaintext_bytes: usize) -> Self {
        Self {
            prefix,
            key,
            values_left: BATCH_VALUES - 1,
            bytes_left: BATCH_BYTES.saturating_sub(plaintext_bytes as u64),
        }
    }

    /// Counts one more value, if there is room for it.
    pub fn take(&mut self, plaintext_bytes: usize) -> bool {
        match (self.values_left.checked_sub(1), self.bytes_left.checked_sub(plaintext_bytes as u64)) {
            (Some(values), Some(bytes)) => {
                (self.values_left, self.bytes_left) = (values, bytes);
                true
            }
            _ => false,
        }
    }
}

const SETS: usize = 64;
/// A prefix may stand in so many places. So a hundred writers whose rows lie among each other are mostly found.
const WAYS: usize = 4;

/// The message keys that a session has opened values with, of all its data keys: a set-associative cache, in which the
/// prefixes, which are random, say where and in whose place. A data key that is dropped takes its own with it.
#[derive(Default)]
pub struct MessageKeys {
    /// None, or all.
    slots: RefCell<Vec<Option<Kept>>>,
    owners: Cell<u64>,
}

struct Kept {
    owner: u64,
    prefix: NoncePrefix,
    key: MessageKey,
}

impl MessageKeys {
    /// Calls `open` with a message key that is kept.
    fn with<T>(&self, owner: u64, prefix: &NoncePrefix, open: impl FnOnce(&MessageKey) -> T) -> Option<T> {
        let slots = self.slots.borrow();
        let set = slots.get(first_of_set(prefix)..)?.iter().take(WAYS).flatten();
        let kept = set.into_iter().find(|kept| kept.owner == owner && kept.prefix == *prefix)?;
        Some(open(&kept.key))
    }

    fn keep(&self, kept: Kept) {
        let mut slots = self.slots.borrow_mut();
        if slots.is_empty() {
            slots.resize_with(SETS * WAYS, || None);
        }
        let set = &mut slots[first_of_set(&kept.prefix)..][..WAYS];
        let replaced = usize::from(kept.prefix[1]) % WAYS;
        let place = set.iter().position(Option::is_none).unwrap_or(replaced);
        set[place] = Some(kept);
    }

    /// Drops those of an owner, which are in these sets.
    fn forget(&self, owner: u64, mut sets: u64) {
        let slots = &mut *self.slots.borrow_mut();
        while sets != 0 {
            let set = slots.iter_mut().skip(sets.trailing_zeros() as usize * WAYS).take(WAYS);
            set.for_each(|slot| _ = slot.take_if(|kept| kept.owner == owner));
            sets &= sets - 1;
        }
    }
}

fn set_of(prefix: &NoncePrefix) -> usize {
    usize::from(prefix[0]) % SETS
}

fn first_of_set(prefix: &NoncePrefix) -> usize {
    set_of(prefix) * WAYS
}

/// The message keys of one data key among those of its session.
pub(crate) struct KeptMessageKeys {
    all: Rc<MessageKeys>,
    owner: u64,
    /// In which sets they are: a bit for each.
    sets: Cell<u64>,
}

impl KeptMessageKeys {
    pub fn new(all: &Rc<MessageKeys>) -> Self {
        let owner = all.owners.get();
        all.owners.set(owner + 1);
        Self { all: Rc::clone(all), owner, sets: Cell::new(0) }
    }

    /// Opens with the message key of a prefix, which is derived if it is not kept, and kept if it has opened something.
    pub fn open<T, E>(
        &self,
        prefix: &NoncePrefix,
        derive: impl FnOnce() -> MessageKey,
        mut open: impl FnMut(&MessageKey) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(opened) = self.all.with(self.owner, prefix, &mut open) {
            return opened;
        }
        let key = derive();
        let opened = open(&key)?;
        self.all.keep(Kept { owner: self.owner, prefix: *prefix, key });
        self.sets.set(self.sets.get() | 1 << set_of(prefix));
        Ok(opened)
    }
}

impl Drop for KeptMessageKeys {
    fn drop(&mut self) {
        self.all.forget(self.owner, self.sets.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::xaes::Xaes256Gcm;

    fn message_key(prefix: &NoncePrefix) -> MessageKey {
        Xaes256Gcm::new(&[1; 32]).message_key(prefix)
    }

    /// Whether the message key had to be derived.
    fn is_derived(keys: &KeptMessageKeys, prefix: &NoncePrefix) -> bool {
        let derived = Cell::new(false);
        let derive = || {
            derived.set(true);
            message_key(prefix)
        };
        keys.open(prefix, derive, |_| Ok::<_, ()>(())).expect("it opens");
        derived.get()
    }

    #[test]
    fn a_batch_ends_by_values_and_by_bytes() {
        let batch = |bytes| Batch::with([0; 12], message_key(&[0; 12]), bytes);
        let mut small = batch(0);
        assert_eq!((0..70_000).filter(|_| small.take(0)).count(), 65_535);
        let mut large = batch(1 << 30);
        assert_eq!((0..100).filter(|_| large.take(1 << 30)).count(), 63);
        assert!(large.take(0), "what has no bytes still fits");
    }

    #[test]
    fn what_was_met_is_kept() {
        let keys = KeptMessageKeys::new(&Rc::default());
        assert!(is_derived(&keys, &[1; 12]));
        assert!(!is_derived(&keys, &[1; 12]));
    }

    #[test]
    fn what_opens_nothing_is_not_kept() {
        let keys = KeptMessageKeys::new(&Rc::default());
        assert_eq!(keys.open(&[1; 12], || message_key(&[1; 12]), |_| Err::<(), _>("forged")), Err("forged"));
        assert!(is_derived(&keys, &[1; 12]));
    }

    #[test]
    fn data_keys_do_not_share_message_keys_and_take_theirs_with_them() {
        let all = Rc::default();
        let (one, other) = (KeptMessageKeys::new(&all), KeptMessageKeys::new(&all));
        assert!(is_derived(&one, &[1; 12]));
        assert!(is_derived(&other, &[1; 12]));
        drop(one);
        assert!(!is_derived(&other, &[1; 12]));
        assert_eq!(all.slots.borrow().iter().flatten().count(), 1);
    }

    #[test]
    fn a_hundred_writers_are_mostly_kept_and_their_number_is_bounded() {
        let all = Rc::default();
        let keys = KeptMessageKeys::new(&all);
        let mut random = 1_u64;
        let prefixes: Vec<_> = (0..1_000)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut prefix = [0; 12];
                prefix[..8].copy_from_slice(&random.to_be_bytes());
                prefix
            })
            .collect();
        prefixes[..100].iter().for_each(|prefix| _ = is_derived(&keys, prefix));
        let derived = prefixes[..100].iter().filter(|prefix| is_derived(&keys, prefix)).count();
        assert!(derived < 20, "{derived} of 100 are derived again");
        prefixes.iter().for_each(|prefix| _ = is_derived(&keys, prefix));
        assert!(all.slots.borrow().len() == SETS * WAYS);
    }
}
