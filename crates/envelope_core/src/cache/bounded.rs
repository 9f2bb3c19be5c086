//! A map that is bounded by the number of its entries and by the memory that they take. Each step takes the same time, however
//! many entries there are.
//!
//! *Eviction* is CLOCK (second chance) with a random hand: of entries that are drawn at random the first one goes that nobody
//! has used since it was last drawn. So what a scan brings in goes before what is used again, and a scan that comes round and
//! round over more than fits finds a part of it each time, where the least recently used, which is always what it needs next,
//! would find nothing.

use std::hash::{BuildHasher, Hash};
use std::ops::{Add, Sub};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Of so many entries that have all been used the last one goes.
const DRAWS: usize = 8;
/// What the map itself takes for an entry, about.
const SLOT_BYTES: usize = 64;

/// What such a map has.
pub trait Entry {
    /// What it is found by.
    type Name<'a>: Copy + Hash;

    /// Whether that is its name.
    fn is_named(&self, name: Self::Name<'_>) -> bool;

    /// About the memory that it takes.
    fn bytes(&self) -> usize;
}

/// How much fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes of memory, about.
    pub bytes: usize,
}

/// What has happened to a cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheCounts {
    /// Look-ups that found their entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries that had to go to make room.
    pub evictions: u64,
    /// Misses of what had been evicted: the cache is too small for how it is used.
    pub evicted_needed: u64,
}

impl Add for CacheCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            evictions: self.evictions + other.evictions,
            evicted_needed: self.evicted_needed + other.evicted_needed,
        }
    }
}

/// What has happened since there were these counts.
impl Sub for CacheCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            evictions: self.evictions - before.evictions,
            evicted_needed: self.evicted_needed - before.evicted_needed,
        }
    }
}

/// The map.
pub struct Bounded<E> {
    /// Places in `slots`, by the hashes of names.
    places: HashTable<u32>,
    slots: Vec<Slot<E>>,
    bytes: usize,
    hasher: DefaultHashBuilder,
    random: u64,
    swept: usize,
    /// Parts of the hashes of what was evicted, each where the rest of its hash says. The next one there takes its place.
    evicted: Vec<u32>,
    counts: CacheCounts,
}

struct Slot<E> {
    hash: u64,
    bytes: u32,
    was_used: bool,
    entry: E,
}

impl<E: Entry> Bounded<E> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        // Nobody can tell which entry goes next.
        Self::with_seed(DefaultHashBuilder::default().hash_one(0_u8))
    }

    /// An empty one, in which the same entries go for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        let hasher = DefaultHashBuilder::default();
        let random = seed | 1;
        let counts = CacheCounts::default();
        Self {
            places: HashTable::new(),
            slots: Vec::new(),
            bytes: 0,
            hasher,
            random,
            swept: 0,
            evicted: vec![],
            counts,
        }
    }

    /// The entry of a name, which is in use.
    pub fn get(&mut self, name: E::Name<'_>) -> Option<&E> {
        let place = self.place(self.hasher.hash_one(name), name)?;
        let slot = &mut self.slots[place];
        slot.was_used = true;
        Some(&slot.entry)
    }

    /// The entry of a name, which is not in use for that.
    #[must_use]
    pub fn peek(&self, name: E::Name<'_>) -> Option<&E> {
        self.place(self.hasher.hash_one(name), name).map(|place| &self.slots[place].entry)
    }

    /// Counts that the entry of a name is needed, and not there.
    pub fn count_miss(&mut self, name: E::Name<'_>) {
        self.counts.misses += 1;
        let (at, part) = self.evicted_at(self.hasher.hash_one(name));
        if let Some(evicted) = self.evicted.get_mut(at)
            && *evicted == part
        {
            *evicted = 0;
            self.counts.evicted_needed += 1;
        }
    }

    /// Counts that an entry that was needed was there.
    #[inline]
    pub fn count_hit(&mut self) {
        self.counts.hits += 1;
    }

    /// Adds an entry, or takes it in the place of the one of this name, which is returned. Others make room for it.
    ///
    /// # Panics
    /// If it has another name.
    pub fn put(&mut self, name: E::Name<'_>, entry: E, bounds: &Bounds) -> Option<E> {
        assert!(entry.is_named(name));
        let replaced = self.pop(name);
        let bytes = entry.bytes() + SLOT_BYTES;
        if bytes <= bounds.bytes && bounds.entries > 0 {
            self.make_room(bounds.entries - 1, bounds.bytes - bytes);
            let (hash, place) = (self.hasher.hash_one(name), self.slots.len());
            // Nobody can fill 4 GB with one.
            self.slots.push(Slot { hash, bytes: bytes as u32, was_used: false, entry });
            self.bytes += bytes;
            let slots = &self.slots;
            self.places.insert_unique(hash, place as u32, |place| slots[*place as usize].hash);
        }
        replaced
    }

    /// Drops an entry.
    pub fn pop(&mut self, name: E::Name<'_>) -> Option<E> {
        let place = self.place(self.hasher.hash_one(name), name)?;
        Some(self.take(place).entry)
    }

    /// Drops the entries for which `stays` is false.
    pub fn retain(&mut self, mut stays: impl FnMut(&E) -> bool) {
        // From behind: the last one takes the place of one that goes.
        for place in (0..self.slots.len()).rev() {
            if !stays(&self.slots[place].entry) {
                self.take(place);
            }
        }
    }

    /// As [`Self::retain`], for the next `entries` of them in turn.
    pub fn sweep(&mut self, entries: usize, mut stays: impl FnMut(&E) -> bool) {
        for _ in 0..entries.min(self.slots.len()) {
            self.swept = self.swept.checked_sub(1).filter(|at| *at < self.slots.len()).unwrap_or(self.slots.len() - 1);
            if !stays(&self.slots[self.swept].entry) {
                self.take(self.swept);
                if self.slots.is_empty() {
                    break;
                }
            }
        }
    }

    /// Drops entries until the others are within these bounds.
    pub fn make_room(&mut self, entries: usize, bytes: usize) {
        while self.slots.len() > entries || self.bytes > bytes {
            let victim = self.draw_victim();
            let Slot { hash, .. } = self.take(victim);
            self.remember_evicted(hash);
            self.counts.evictions += 1;
        }
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().map(|slot| &slot.entry)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// About the memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much of what fits is taken, by number or by memory, whichever is more: 1 is all.
    #[must_use]
    pub fn fill(&self, bounds: &Bounds) -> f64 {
        let part = |taken: usize, of: usize| taken as f64 / of.max(1) as f64;
        part(self.slots.len(), bounds.entries).max(part(self.bytes, bounds.bytes))
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }

    /// Drops all. That they are needed again says nothing about the bounds.
    pub fn clear(&mut self) {
        self.places = HashTable::new();
        self.slots = Vec::new();
        self.evicted = Vec::new();
        self.bytes = 0;
    }

    fn place(&self, hash: u64, name: E::Name<'_>) -> Option<usize> {
        let is_it = |place: &u32| {
            let slot = &self.slots[*place as usize];
            slot.hash == hash && slot.entry.is_named(name)
        };
        self.places.find(hash, is_it).map(|place| *place as usize)
    }

    /// Takes an entry out; the last one takes its place.
    fn take(&mut self, place: usize) -> Slot<E> {
        let last = self.slots.len() - 1;
        let found = self.places.find_entry(self.slots[place].hash, |other| *other as usize == place);
        found.unwrap_or_else(|_| unreachable!("each slot has its place")).remove();
        if last != place {
            let moved = self.places.find_mut(self.slots[last].hash, |other| *other as usize == last);
            *moved.unwrap_or_else(|| unreachable!("each slot has its place")) = place as u32;
        }
        let slot = self.slots.swap_remove(place);
        self.bytes -= slot.bytes as usize;
        slot
    }

    fn draw_victim(&mut self) -> usize {
        let mut drawn = 0;
        for _ in 0..DRAWS {
            // xorshift64 (Marsaglia, "Xorshift RNGs"); the product's upper half is below the number of entries (Lemire, 2019).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            drawn = (((self.random >> 32) * self.slots.len() as u64) >> 32) as usize;
            if !std::mem::take(&mut self.slots[drawn].was_used) {
                break;
            }
        }
        drawn
    }

    /// Where a hash stands among the evicted, and as what: never 0.
    fn evicted_at(&self, hash: u64) -> (usize, u32) {
        let at = (hash as usize) & self.evicted.len().wrapping_sub(1);
        (at, (hash >> 32) as u32 | 1)
    }

    fn remember_evicted(&mut self, hash: u64) {
        // As many as there are entries, and up to four times as many.
        let wanted = (2 * (self.slots.len() + 1)).next_power_of_two();
        if self.evicted.len() < wanted {
            self.evicted = vec![0; 2 * wanted];
        }
        let (at, part) = self.evicted_at(hash);
        self.evicted[at] = part;
    }
}

impl<E: Entry> Default for Bounded<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(u64, usize);

    impl Entry for Named {
        type Name<'a> = u64;

        fn is_named(&self, name: u64) -> bool {
            self.0 == name
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    const MANY: Bounds = Bounds { entries: 1_000, bytes: usize::MAX };

    fn put(map: &mut Bounded<Named>, name: u64, bounds: &Bounds) {
        map.put(name, Named(name, 0), bounds);
    }

    /// Looks a name up, and adds it if it is not there, as a cache does.
    fn use_name(map: &mut Bounded<Named>, name: u64) -> bool {
        let is_hit = map.get(name).is_some();
        if is_hit {
            map.count_hit();
        } else {
            map.count_miss(name);
            put(map, name, &MANY);
        }
        is_hit
    }

    /// The part of look-ups that hit, in percent, once the cache has seen the pattern for a while.
    fn hits(names: impl Iterator<Item = u64>) -> u64 {
        let mut map = Bounded::new();
        let (mut hits, mut all) = (0, 0);
        for (at, name) in names.enumerate() {
            let is_hit = use_name(&mut map, name);
            if at >= 20_000 {
                (hits, all) = (hits + u64::from(is_hit), all + 1);
            }
        }
        assert!(map.len() <= MANY.entries);
        hits * 100 / all
    }

    #[test]
    fn a_map_of_names() {
        let mut map = Bounded::new();
        (0..100).for_each(|name| put(&mut map, name, &MANY));
        assert!((0..100).all(|name| map.get(name).is_some_and(|named| named.0 == name)));
        assert!(map.peek(100).is_none());
        map.retain(|named| named.0 % 3 == 0);
        assert_eq!(map.len(), 34);
        assert!((0..100).all(|name| map.peek(name).is_some() == (name % 3 == 0)));
        assert!(map.pop(3).is_some_and(|named| named.0 == 3) && map.pop(3).is_none());
        assert!(map.put(6, Named(6, 7), &MANY).is_some_and(|named| named.1 == 0), "what was there is returned");
        assert_eq!((map.len(), map.peek(6).unwrap().1), (33, 7));
        map.clear();
        assert_eq!((map.len(), map.bytes(), map.peek(6).is_none()), (0, 0, true));
    }

    #[test]
    fn it_keeps_within_its_bounds() {
        let (mut map, bounds) = (Bounded::new(), Bounds { entries: 10, bytes: 5_000 });
        for name in 0..1_000 {
            map.put(name, Named(name, name as usize % 5_500), &bounds);
            assert!(map.len() <= 10 && map.bytes() <= 5_000);
            assert_eq!(map.bytes(), map.iter().map(|named| named.1 + SLOT_BYTES).sum::<usize>());
        }
        assert!(map.put(1_000, Named(1_000, 5_001), &bounds).is_none());
        assert!(map.peek(1_000).is_none() && !map.is_empty(), "what is larger than all may be drives nothing out");
        map.make_room(3, usize::MAX);
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn all_are_swept_in_turn() {
        let mut map = Bounded::new();
        (0..1_000).for_each(|name| put(&mut map, name, &MANY));
        (0..100).for_each(|_| map.sweep(10, |named| named.0 % 2 == 0));
        assert_eq!(map.len(), 500);
        map.sweep(16, |_| false);
        assert_eq!(map.len(), 500 - 16);
        map.sweep(usize::MAX, |_| false);
        assert!(map.is_empty());
    }

    #[test]
    fn a_scan_that_comes_round_and_round_finds_a_part() {
        let cycle = |of: u64| hits((0..200_000).map(move |at| at % of));
        assert_eq!(cycle(1_000), 100);
        let shares = [1_100, 1_500, 2_000, 4_000].map(cycle);
        println!("of a cycle over 1.1, 1.5, 2 and 4 times what fits are found: {shares:?} %");
        for (share, at_least) in shares.into_iter().zip([70, 30, 12, 0]) {
            assert!(share >= at_least, "{shares:?}");
        }
    }

    #[test]
    fn what_is_used_often_stays_while_a_scan_goes_by() {
        let mut map = Bounded::new();
        let mut misses = 0;
        for at in 0..100_000 {
            use_name(&mut map, 1_000_000 + at);
            let is_hit = use_name(&mut map, at % 100);
            misses += u64::from(!is_hit && at >= 10_000);
        }
        assert!(misses < 900, "{misses} of 90,000");
    }

    #[test]
    fn random_order_finds_what_fits() {
        let mut random = 1_u64;
        let share = hits((0..200_000).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % 2_000
        }));
        assert!((45..=55).contains(&share), "{share}");
    }

    #[test]
    fn what_was_evicted_and_is_needed_again_is_counted() {
        let mut map = Bounded::new();
        (0..2_000).for_each(|name| _ = use_name(&mut map, name));
        let CacheCounts { hits, misses, evictions, evicted_needed } = map.counts();
        assert_eq!(
            (hits, misses, evictions, evicted_needed),
            (0, 2_000, 1_000, 0),
            "they are needed for the first time"
        );
        let gone: Vec<u64> = (0..2_000).filter(|name| map.peek(*name).is_none()).collect();
        gone.iter().for_each(|name| map.count_miss(*name));
        let counted = map.counts().evicted_needed;
        assert!((800..=1_000).contains(&counted), "{counted}");
        gone.iter().for_each(|name| map.count_miss(*name));
        assert_eq!(map.counts().evicted_needed, counted, "once each");
        map.clear();
        gone.iter().for_each(|name| map.count_miss(*name));
        assert_eq!(map.counts().evicted_needed, counted, "what was dropped with all is no eviction");
    }
}
