//! A map that is bounded by the number and by the size of its entries: the least recently used go first. What the broker
//! remembers is named by values and statements, so whoever writes these chooses how large a name is.

use std::borrow::Borrow;
use std::hash::Hash;
use std::rc::Rc;

use lru::LruCache;

/// What such a map has as keys.
pub trait Name: Eq + Hash {
    /// About the memory that it takes.
    fn bytes(&self) -> usize;
}

impl<N: Name> Name for Rc<N> {
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
}

/// The map. Its values are small, and not counted.
pub struct Bounded<N, V> {
    entries: LruCache<N, V>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl<N: Name, V> Bounded<N, V> {
    /// An empty one.
    #[must_use]
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, max_entries, max_bytes }
    }

    /// The entry of a name, which is in use.
    pub fn get<Q: Eq + Hash>(&mut self, name: &Q) -> Option<(&N, &V)>
    where
        N: Borrow<Q>,
    {
        self.entries.get_key_value(name)
    }

    /// The value of a name, which is not in use for that.
    pub fn peek<Q: Eq + Hash>(&self, name: &Q) -> Option<&V>
    where
        N: Borrow<Q>,
    {
        self.entries.peek(name)
    }

    /// Adds an entry, or replaces its value, which is returned.
    pub fn put(&mut self, name: N, value: V) -> Option<V> {
        self.bytes += name.bytes();
        let replaced = self.entries.push(name, value);
        self.bytes -= replaced.as_ref().map_or(0, |(name, _)| name.bytes());
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some((name, _)) = self.entries.pop_lru() else { break };
            self.bytes -= name.bytes();
        }
        replaced.map(|(_, value)| value)
    }

    /// Drops an entry.
    pub fn pop<Q: Eq + Hash>(&mut self, name: &Q)
    where
        N: Borrow<Q>,
    {
        self.bytes -= self.entries.pop_entry(name).map_or(0, |(name, _)| name.bytes());
    }

    /// Drops the entries for which `stays` is false.
    pub fn retain(&mut self, mut stays: impl FnMut(&N, &V) -> bool) {
        self.entries.retain(|name, value| stays(name, value));
        self.bytes = self.entries.iter().map(|(name, _)| name.bytes()).sum();
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&N, &V)> {
        self.entries.iter()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Name for String {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn the_least_recently_used_go_when_there_are_too_many_or_too_large_ones() {
        let mut map = Bounded::new(3, 10);
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(map.put(name.to_owned(), number), None);
        }
        assert_eq!(map.get(&"a".to_owned()).map(|(_, number)| *number), Some(0));
        assert_eq!(map.put("d".to_owned(), 3), None);
        let names = |map: &Bounded<String, usize>| map.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&map), ["d", "a", "c"]);
        assert_eq!(map.put("a".to_owned(), 4), Some(0), "it is not counted twice");
        map.put("12345678".to_owned(), 5);
        assert_eq!(names(&map), ["12345678", "a", "d"]);
        map.put("123".to_owned(), 6);
        assert_eq!(names(&map), ["123"]);
        map.put("12345678901".to_owned(), 7);
        assert!(map.is_empty() && map.bytes == 0, "larger than all may be");
    }

    #[test]
    fn what_was_dropped_is_not_counted() {
        let mut map = Bounded::new(10, 10);
        for name in ["123", "1234", "12"] {
            map.put(name.to_owned(), ());
        }
        map.pop(&"123".to_owned());
        assert_eq!((map.len(), map.bytes), (2, 6));
        map.retain(|name, ()| name.len() == 2);
        assert_eq!((map.len(), map.bytes), (1, 2));
        map.clear();
        assert_eq!((map.len(), map.bytes), (0, 0));
    }
}
