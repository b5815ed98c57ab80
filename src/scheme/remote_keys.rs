//! Keys that a provider publishes one by one, under the id that messages name.
//!
//! A check never waits for the network and never leads anywhere: it looks among the keys that are here. An id that is
//! not here is *asked for*, if it has exactly the shape the configuration gives and the window allows it, and the
//! check is told that the key is not loaded; the provider tries again, and finds it. Who fetches, and from where, is
//! not known in this room.
//!
//! Bounds: one unknown id in [`WINDOW`], [`MAX_KEYS`] ids remembered, absent ones forgotten after [`ABSENT_FOR`]. A
//! key that is here is refreshed in the background after [`FRESH_FOR`] and verifies on meanwhile, at most
//! [`STALE_FOR`], so that an outage of the provider's key host costs nothing.

use super::public_key::RsaKey;
use crate::{
    clock::Now,
    decision::{Denial, Fault, Rejection},
    secret::Key,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// One unknown id is asked for in this time; a flood of invented ids costs one fetch.
pub const WINDOW: Duration = Duration::from_secs(10);
/// An id that the provider does not have is not asked for again in this time.
pub const ABSENT_FOR: Duration = Duration::from_secs(60);
/// After this a key is fetched again.
pub const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
/// After this a key that could not be fetched again verifies no more.
pub const STALE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most ids remembered.
pub const MAX_KEYS: usize = 64;

/// Asks for an id, at once and without waiting; says whether anybody listens.
pub type Ask = Arc<dyn Fn(&Arc<RemoteKeys>, &str) -> bool + Send + Sync>;

/// The keys of one source.
pub struct RemoteKeys {
    shape: KeyIdShape,
    ask: Ask,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<String, Entry>,
    last_unknown: Option<Duration>,
}

struct Entry {
    key: Option<Arc<Key<RsaKey>>>,
    since: Duration,
    asked: Option<Duration>,
}

/// Which ids may be asked for: literal text, and `{}` for one path segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIdShape(Vec<Option<String>>);

impl KeyIdShape {
    /// Reads a shape such as `/pl/{}/{}`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/');
        let read = |segment: &str| match segment {
            "{}" => Some(None),
            literal if is_plain_segment(literal) => Some(Some(literal.to_owned())),
            _ => None,
        };
        segments.map(read).collect::<Option<_>>().map(Self)
    }

    /// Whether an id has this shape. What passes can be put behind a host and stays behind it: it begins with a slash,
    /// and has no dot segment, no escape, no `@`, no query and no white space.
    #[must_use]
    pub fn fits(&self, id: &str) -> bool {
        let Some(rest) = id.strip_prefix('/') else { return false };
        let segments: Vec<&str> = rest.split('/').collect();
        id.len() <= 256
            && segments.len() == self.0.len()
            && segments.iter().zip(&self.0).all(|(segment, shape)| match shape {
                Some(literal) => segment == literal,
                None => is_plain_segment(segment),
            })
    }
}

fn is_plain_segment(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

impl RemoteKeys {
    /// No keys yet; ids of this shape are asked for.
    #[must_use]
    pub fn new(shape: KeyIdShape, ask: Ask) -> Arc<Self> {
        Arc::new(Self { shape, ask, known: Mutex::default() })
    }

    /// Every change below is one insert, so that a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key with an id. Not here means: not one of theirs, or not loaded yet.
    pub fn find(self: &Arc<Self>, id: &str, now: Now) -> Result<Arc<Key<RsaKey>>, Denial> {
        if !self.shape.fits(id) {
            return Err(Rejection::KeyIdUnknown.into());
        }
        let (found, wanted) = self.lock().find(id, now.monotonic);
        // Asking happens outside the lock; nobody's answer depends on it.
        if wanted && !(self.ask)(self, id) {
            self.lock().entries.remove(id);
        }
        found
    }

    /// Puts in what was fetched: a key, or that there is none.
    pub fn put(&self, id: &str, key: Option<Key<RsaKey>>, now: Now) {
        let key = key.map(Arc::new);
        self.lock().entries.insert(id.to_owned(), Entry { key, since: now.monotonic, asked: None });
    }
}

impl Known {
    /// What is known of an id, and whether to ask for it.
    fn find(&mut self, id: &str, now: Duration) -> (Result<Arc<Key<RsaKey>>, Denial>, bool) {
        let age_of = |moment: Duration| now.saturating_sub(moment);
        if let Some(entry) = self.entries.get_mut(id) {
            let may_ask = entry.asked.is_none_or(|asked| age_of(asked) >= WINDOW);
            return match &entry.key {
                Some(key) if age_of(entry.since) < STALE_FOR => {
                    let key = Arc::clone(key);
                    let wanted = may_ask && age_of(entry.since) >= FRESH_FOR;
                    if wanted {
                        entry.asked = Some(now);
                    }
                    (Ok(key), wanted)
                }
                None if entry.asked.is_none() && age_of(entry.since) < ABSENT_FOR => {
                    (Err(Rejection::KeyIdUnknown.into()), false)
                }
                _ if may_ask => {
                    entry.asked = Some(now);
                    (Err(Fault::KeyNotLoaded.into()), true)
                }
                _ => (Err(Fault::KeyNotLoaded.into()), false),
            };
        }
        let free = self.last_unknown.is_none_or(|last| age_of(last) >= WINDOW) && self.make_room(now);
        if free {
            self.last_unknown = Some(now);
            self.entries.insert(id.to_owned(), Entry { key: None, since: now, asked: Some(now) });
        }
        (Err(Fault::KeyNotLoaded.into()), free)
    }

    /// Makes room for one more id by forgetting absent ones. Keys are never pushed out by ids somebody made up.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.entries.len() >= MAX_KEYS {
            self.entries.retain(|_, entry| entry.key.is_some() || now.saturating_sub(entry.since) < ABSENT_FOR);
        }
        self.entries.len() < MAX_KEYS
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKeys({:?})", self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::UnixSeconds, secret::Label};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PEM: &str = include_str!("../../tests/fixtures/rsa-2048.pub.pem");

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(0), monotonic: Duration::from_secs(seconds) }
    }

    fn key() -> Key<RsaKey> {
        let label = Arc::new(Label { id: "k".into(), tags: vec![] });
        Key { label, from: None, until: None, value: RsaKey::from_pem(PEM, false).unwrap() }
    }

    fn keys() -> (Arc<RemoteKeys>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ask: Ask = Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        (RemoteKeys::new(KeyIdShape::parse("/pl/{}/{}").unwrap(), ask), asked)
    }

    #[test]
    fn ids_that_could_lead_elsewhere_do_not_fit() {
        let shape = KeyIdShape::parse("/pl/{}/{}").unwrap();
        assert!(shape.fits("/pl/useast1/72-a6-17-9d_x.y:z"));
        for id in [
            "",
            "/",
            "/pl",
            "/pl/a",
            "/pl/a/",
            "/pl//b",
            "/pl/a/b/c",
            "/xx/a/b",
            "pl/a/b",
            ".attacker.example/cert.pem",
            "@attacker.example/pl/a/b",
            "/pl/../b",
            "/pl/a/..",
            "/pl/.a/b",
            "/pl/a/b?c",
            "/pl/a/b#c",
            "/pl/a/%2e%2e",
            "/pl/a/b c",
            "/pl/a/b\\c",
            "//attacker.example/a",
            "/pl/a/b@c",
            "/pl/a/é",
            "http://x/pl/a/b",
        ] {
            assert!(!shape.fits(id), "{id:?}");
        }
        assert!(!shape.fits(&format!("/pl/a/{}", "b".repeat(300))));
        for bad in ["", "pl/{}", "/pl/..", "/pl/{}x", "//{}"] {
            assert_eq!(KeyIdShape::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_id_is_asked_for_once_and_then_here() {
        let (keys, asked) = keys();
        for _ in 0..5 {
            assert_eq!(keys.find("/pl/a/b", at(0)).map(drop), Err(Fault::KeyNotLoaded.into()));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        keys.put("/pl/a/b", Some(key()), at(1));
        assert!(keys.find("/pl/a/b", at(2)).is_ok());
        assert_eq!(keys.find("/elsewhere", at(2)).map(drop), Err(Rejection::KeyIdUnknown.into()));
    }

    #[test]
    fn a_flood_of_invented_ids_costs_one_fetch_a_window() {
        let (keys, asked) = keys();
        keys.put("/pl/a/b", Some(key()), at(0));
        for at_second in 0..100 {
            for n in 0..50 {
                keys.find(&format!("/pl/x/{at_second}-{n}"), at(at_second)).map(drop).unwrap_err();
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), 10);
        assert!(keys.find("/pl/a/b", at(100)).is_ok(), "keys are not pushed out");
        assert!(keys.lock().entries.len() <= MAX_KEYS);
    }

    #[test]
    fn an_absent_id_is_unknown_for_a_while_and_then_asked_for_again() {
        let (keys, asked) = keys();
        keys.find("/pl/a/b", at(0)).map(drop).unwrap_err();
        keys.put("/pl/a/b", None, at(1));
        assert_eq!(keys.find("/pl/a/b", at(2)).map(drop), Err(Rejection::KeyIdUnknown.into()));
        assert_eq!(keys.find("/pl/a/b", at(62)).map(drop), Err(Fault::KeyNotLoaded.into()));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_old_key_verifies_while_it_is_fetched_again_but_not_for_ever() {
        let (keys, asked) = keys();
        keys.put("/pl/a/b", Some(key()), at(0));
        let day = 24 * 3600;
        assert!(keys.find("/pl/a/b", at(day - 1)).is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert!(keys.find("/pl/a/b", at(day)).is_ok());
        assert!(keys.find("/pl/a/b", at(day + 1)).is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(keys.find("/pl/a/b", at(7 * day)).map(drop), Err(Fault::KeyNotLoaded.into()));
    }
}
