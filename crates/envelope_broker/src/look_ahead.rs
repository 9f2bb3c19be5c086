//! Reading ahead: a session that asks for data keys one after the other, in an order that was seen before, is about to ask for
//! the ones that followed. So a scan over many data keys waits for a few calls, and not for one after the other.
//!
//! As with the read-ahead of an operating system, one step in the known order proves nothing; with each further one twice as
//! many are asked for ahead, up to a bound, and a step off it ends that. Only what was opened before is asked for again, and not
//! after it has failed; what is remembered are wrapped data keys, as they stand in values.

use std::rc::Rc;

use lru::LruCache;

use crate::bounded::{Bounded, Name};
use crate::store::DekName;

/// Data keys whose follower is remembered.
const MAX_REMEMBERED: usize = 16_384;
/// And what their names take.
const MAX_REMEMBERED_BYTES: usize = 8 * 1024 * 1024;
/// A larger one is not remembered. KMS takes an encryption context of 8 KiB at most.
const MAX_NAME_BYTES: usize = 10 * 1024;
/// Sessions whose way is followed.
const MAX_SESSIONS: usize = 1_024;
/// Data keys that are asked for ahead of one session.
const MAX_AHEAD: usize = 16;

/// What came after what, and where each session is.
pub struct LookAhead {
    followers: Bounded<Rc<DekName>, Rc<DekName>>,
    sessions: LruCache<i32, Way>,
}

/// Where a session is, and how many to ask for ahead of it.
struct Way {
    last: Rc<DekName>,
    ahead: usize,
}

impl Default for LookAhead {
    fn default() -> Self {
        let followers = Bounded::new(MAX_REMEMBERED, MAX_REMEMBERED_BYTES);
        Self { followers, sessions: LruCache::unbounded() }
    }
}

impl LookAhead {
    /// Whether data keys were asked for ahead of a session, by what it asked for last.
    #[must_use]
    pub fn is_ahead_of(&self, session: i32) -> bool {
        self.sessions.peek(&session).is_some_and(|way| way.ahead > 0)
    }

    /// A session asks for a data key. Returns those that it will ask for next, if it is on a known way, each with the one before.
    pub fn ahead(&mut self, session: i32, name: &DekName) -> Vec<(Rc<DekName>, Rc<DekName>)> {
        let Some(way) = self.sessions.get_mut(&session) else { return Vec::new() };
        let is_expected = *way.last != *name && self.followers.peek(&*way.last).is_some_and(|next| **next == *name);
        way.ahead = if is_expected { (2 * way.ahead).clamp(1, MAX_AHEAD) } else { 0 };
        let (ahead, first) = (way.ahead, self.followers.get(name));
        let first = first.map(|(before, next)| (Rc::clone(before), Rc::clone(next)));
        let step = |(_, last): &(_, Rc<DekName>)| Some((Rc::clone(last), Rc::clone(self.followers.peek(&**last)?)));
        std::iter::successors(first, step).take(ahead).collect()
    }

    /// The data key that a session has asked for was opened.
    pub fn opened(&mut self, session: i32, name: &DekName) {
        if name.bytes() > MAX_NAME_BYTES {
            self.sessions.pop(&session);
            return;
        }
        let name = match self.followers.get(name) {
            Some((known, _)) => Rc::clone(known),
            None => Rc::new(name.clone()),
        };
        let way = self.sessions.get(&session);
        let ahead = way.map_or(0, |way| way.ahead);
        if let Some(way) = way.filter(|way| way.last != name) {
            self.followers.put(Rc::clone(&way.last), Rc::clone(&name));
        }
        self.sessions.put(session, Way { last: name, ahead });
        if self.sessions.len() > MAX_SESSIONS {
            self.sessions.pop_lru();
        }
    }

    /// What was asked for ahead, since it came after this one, does not open.
    pub fn failed(&mut self, before: &DekName, name: &DekName) {
        if self.followers.peek(before).is_some_and(|next| **next == *name) {
            self.followers.pop(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envelope_core::context::EncryptionContext;
    use envelope_core::keys::{Provider, WrappedKey};

    fn name(number: u8) -> DekName {
        let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: vec![number] };
        DekName { wrapped, context: EncryptionContext::default() }
    }

    fn ahead(look_ahead: &mut LookAhead, session: i32, number: u8) -> Vec<u8> {
        let ahead = look_ahead.ahead(session, &name(number));
        look_ahead.opened(session, &name(number));
        ahead.iter().map(|(_, name)| name.wrapped.wrapped_dek[0]).collect()
    }

    #[test]
    fn an_order_that_was_seen_before_is_read_ahead() {
        let mut look_ahead = LookAhead::default();
        for number in 0..40 {
            assert!(ahead(&mut look_ahead, 1, number).is_empty(), "nobody has asked for them before");
        }
        assert!(ahead(&mut look_ahead, 2, 0).is_empty(), "it may be after this one only");
        assert_eq!(ahead(&mut look_ahead, 2, 1), [2]);
        assert_eq!(ahead(&mut look_ahead, 2, 2), [3, 4]);
        assert_eq!(ahead(&mut look_ahead, 2, 3), [4, 5, 6, 7]);
        assert_eq!(ahead(&mut look_ahead, 2, 4).len(), 8);
        assert_eq!(ahead(&mut look_ahead, 2, 5).len(), 16);
        assert_eq!(ahead(&mut look_ahead, 2, 6).len(), 16);
        assert!(ahead(&mut look_ahead, 2, 30).is_empty(), "a step off the way");
        assert_eq!(ahead(&mut look_ahead, 2, 31), [32]);
        assert_eq!(ahead(&mut look_ahead, 3, 39).len(), 0, "another session, at the end");
    }

    #[test]
    fn asking_for_the_same_again_is_no_step() {
        let mut look_ahead = LookAhead::default();
        for _ in 0..3 {
            for number in [0, 0, 0] {
                assert!(ahead(&mut look_ahead, 1, number).is_empty());
            }
        }
    }

    #[test]
    fn what_does_not_open_is_not_asked_for_ahead() {
        let mut look_ahead = LookAhead::default();
        for number in 0..10 {
            look_ahead.opened(1, &name(number));
        }
        // A value of another data key that does not open stands between.
        assert!(look_ahead.ahead(2, &name(0)).is_empty());
        look_ahead.opened(2, &name(0));
        assert!(look_ahead.ahead(2, &name(100)).is_empty());
        assert_eq!(ahead(&mut look_ahead, 2, 1), [2], "it is no step off the way");
        look_ahead.failed(&name(4), &name(5));
        assert_eq!(ahead(&mut look_ahead, 2, 2), [3, 4]);
        assert_eq!(ahead(&mut look_ahead, 2, 3), [4]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut look_ahead = LookAhead::default();
        for number in 0..2 * MAX_REMEMBERED as u32 {
            let wrapped_dek = number.to_be_bytes().to_vec();
            let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek };
            look_ahead.opened(number as i32 % 5_000, &DekName { wrapped, context: EncryptionContext::default() });
        }
        assert!(look_ahead.followers.len() <= MAX_REMEMBERED);
        assert_eq!(look_ahead.sessions.len(), MAX_SESSIONS);
    }

    /// Whoever can store a value chooses how large its wrapped data key is.
    #[test]
    fn large_names_do_not_take_more_memory() {
        let mut look_ahead = LookAhead::default();
        let mut ask = |number: u32, bytes: usize| {
            let wrapped_dek = [&number.to_be_bytes()[..], &vec![0; bytes]].concat();
            let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek };
            look_ahead.opened(1, &DekName { wrapped, context: EncryptionContext::default() });
            look_ahead.followers.len()
        };
        let small = (0..4_000).map(|number| ask(number, 8 * 1024)).max();
        assert!((900..1_100).contains(&small.unwrap()), "{small:?}");
        let (before, after) = (ask(0, 0), (0..100).map(|number| ask(number, 60_000)).max());
        assert_eq!(after, Some(before), "they are not remembered");
    }
}
