//! Keys that a provider publishes: one by one under the id that messages name, or all in one set.
//!
//! A check never waits for the network and never leads anywhere: it looks among the keys that are here. An id that is
//! not here is *asked for*, if it has exactly the shape the configuration gives and the window allows it, and the
//! check is told that the key is not loaded; the provider tries again, and finds it. Who fetches, and from where, is
//! not known in this room.
//!
//! Bounds: one unknown id in [`WINDOW`], [`MAX_KEYS`] ids remembered, absent ones forgotten after [`ABSENT_FOR`]. A
//! key that is here is refreshed in the background after [`FRESH_FOR`] and verifies on meanwhile, at most
//! [`STALE_FOR`], so that an outage of the provider's key host costs nothing.

use super::public_key::PublicKey;
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
/// After this a key that has an address of its own is fetched again.
pub const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
/// After this a set of keys is fetched again.
pub const SET_FRESH_FOR: Duration = Duration::from_secs(3600);
/// After this a key that could not be fetched again verifies no more.
pub const STALE_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most ids remembered.
pub const MAX_KEYS: usize = 64;

/// Asks for an id, at once and without waiting; says whether anybody listens.
pub type Ask = Arc<dyn Fn(&Arc<RemoteKeys>, &str) -> bool + Send + Sync>;

/// The keys of one source.
pub struct RemoteKeys {
    ids: Ids,
    ask: Ask,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<String, Entry>,
    last_unknown: Option<Duration>,
}

struct Entry {
    key: Option<Arc<Key<PublicKey>>>,
    since: Duration,
    asked: Option<Duration>,
}

/// Which ids may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// Those of a shape, each of which leads to a key of its own.
    Shaped(KeyIdShape),
    /// Any plain word: all keys come in one set, from one address.
    InSet,
}

/// Literal text, and `{}` for a word in between: in a path one that holds no slash, in a host no dot either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIdShape(Vec<ShapePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum ShapePart {
    Literal(String),
    /// Whether it stands in a host.
    Word(bool),
}

/// Longest id, in bytes.
const MAX_ID: usize = 256;

impl KeyIdShape {
    /// Reads a shape: a path such as `/pl/{}/{}`, or a whole address such as `https://keys.{}.example/{}.pem`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let path_at = match text.strip_prefix("https://") {
            Some(rest) => rest.find('/')?.checked_add("https://".len())?,
            None => 0,
        };
        let (host, path) = text.split_at_checked(path_at)?;
        let literals = host.strip_prefix("https://").unwrap_or(host).split("{}").chain(path.split("{}"));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
        let odd = !path.starts_with('/') || path.contains("//") || path.contains("/.") || path.ends_with('/');
        if odd || !literals.into_iter().all(|literal| literal.bytes().all(plain)) {
            return None;
        }
        let mut parts = Vec::new();
        for (text, in_host) in [(host, true), (path, false)] {
            for (at, literal) in text.split("{}").enumerate() {
                if at > 0 {
                    parts.push(ShapePart::Word(in_host));
                }
                if !literal.is_empty() {
                    parts.push(ShapePart::Literal(literal.to_owned()));
                }
            }
        }
        Some(Self(parts))
    }

    /// Whether an id has this shape. What passes can be fetched: it stays at the configured host, and has no dot
    /// segment, no escape, no `@`, no query and no white space.
    #[must_use]
    pub fn fits(&self, id: &str) -> bool {
        id.len() <= MAX_ID && fits(&self.0, id)
    }
}

fn fits(parts: &[ShapePart], id: &str) -> bool {
    match parts.split_first() {
        None => id.is_empty(),
        Some((ShapePart::Literal(literal), rest)) => id.strip_prefix(literal.as_str()).is_some_and(|id| fits(rest, id)),
        Some((ShapePart::Word(in_host), rest)) => {
            let in_word = |b: &u8| {
                b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || (!in_host && matches!(b, b'.' | b':'))
            };
            let run = id.bytes().take_while(in_word).count();
            // The longest word first; what follows may begin with what a word may hold.
            (1..=run)
                .rev()
                .filter_map(|length| id.split_at_checked(length))
                .any(|(word, id)| word.starts_with(|c: char| c.is_ascii_alphanumeric()) && fits(rest, id))
        }
    }
}

impl RemoteKeys {
    /// No keys yet.
    #[must_use]
    pub fn new(ids: Ids, ask: Ask) -> Arc<Self> {
        Arc::new(Self { ids, ask, known: Mutex::default() })
    }

    /// Asks for a set of keys before a message names one. Keys with an address of their own are not known yet.
    pub fn prepare(self: &Arc<Self>) {
        if self.ids == Ids::InSet {
            // Whether anybody listens shows when a message comes.
            (self.ask)(self, "");
        }
    }

    fn may_ask_for(&self, id: &str) -> bool {
        match &self.ids {
            Ids::Shaped(shape) => shape.fits(id),
            Ids::InSet => (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()),
        }
    }

    fn fresh_for(&self) -> Duration {
        match self.ids {
            Ids::Shaped(_) => FRESH_FOR,
            Ids::InSet => SET_FRESH_FOR,
        }
    }

    /// Every change below is one insert, so that a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key with an id. Not here means: not one of theirs, or not loaded yet.
    pub fn find(self: &Arc<Self>, id: &str, now: Now) -> Result<Arc<Key<PublicKey>>, Denial> {
        if !self.may_ask_for(id) {
            return Err(Rejection::KeyIdUnknown.into());
        }
        let (found, wanted) = self.lock().find(id, now.monotonic, self.fresh_for());
        // Asking happens outside the lock; nobody's answer depends on it.
        if wanted && !(self.ask)(self, id) {
            self.lock().entries.remove(id);
        }
        found
    }

    /// Puts in what was fetched: a key, or that there is none.
    pub fn put(&self, id: &str, key: Option<Key<PublicKey>>, now: Now) {
        let key = key.map(Arc::new);
        self.lock().entries.insert(id.to_owned(), Entry { key, since: now.monotonic, asked: None });
    }

    /// Puts in a whole set that was fetched because of `asked_for`. A key that is no longer in it is gone.
    pub fn put_set(&self, keys: Vec<(String, Key<PublicKey>)>, asked_for: &str, now: Now) {
        let mut known = self.lock();
        known.entries.retain(|_, entry| entry.key.is_none());
        let fetched = |key| Entry { key, since: now.monotonic, asked: None };
        if !asked_for.is_empty() {
            known.entries.insert(asked_for.to_owned(), fetched(None));
        }
        for (id, key) in keys.into_iter().take(MAX_KEYS) {
            known.entries.insert(id, fetched(Some(Arc::new(key))));
        }
    }
}

impl Known {
    /// What is known of an id, and whether to ask for it.
    fn find(&mut self, id: &str, now: Duration, fresh_for: Duration) -> (Result<Arc<Key<PublicKey>>, Denial>, bool) {
        let age_of = |moment: Duration| now.saturating_sub(moment);
        if let Some(entry) = self.entries.get_mut(id) {
            let may_ask = entry.asked.is_none_or(|asked| age_of(asked) >= WINDOW);
            return match &entry.key {
                Some(key) if age_of(entry.since) < STALE_FOR => {
                    let key = Arc::clone(key);
                    let wanted = may_ask && age_of(entry.since) >= fresh_for;
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
        write!(f, "RemoteKeys({:?})", self.ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::UnixSeconds,
        scheme::{algorithm::Algorithm, public_key::KeyPolicy},
        secret::Label,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PEM: &str = include_str!("../../tests/fixtures/rsa-2048.pub.pem");

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(0), monotonic: Duration::from_secs(seconds) }
    }

    fn key() -> Key<PublicKey> {
        let label = Arc::new(Label { id: "k".into(), tags: vec![] });
        Key {
            label,
            from: None,
            until: None,
            value: PublicKey::from_pem(PEM, &[Algorithm::RsaPkcs1Sha256], KeyPolicy::default()).unwrap(),
        }
    }

    fn keys() -> (Arc<RemoteKeys>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ask: Ask = Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        });
        (RemoteKeys::new(Ids::Shaped(KeyIdShape::parse("/pl/{}/{}").unwrap()), ask), asked)
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
        for bad in ["", "pl/{}", "/pl/..", "//{}", "/pl/{}?x", "http://a/b", "https://host", "https://u@h/{}"] {
            assert_eq!(KeyIdShape::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn whole_addresses_stay_at_their_host() {
        let shape = KeyIdShape::parse("https://keys.{}.example.com/Cert-{}.pem").unwrap();
        assert!(shape.fits("https://keys.eu-west-1.example.com/Cert-0a1b.pem"));
        for address in [
            "http://keys.eu.example.com/Cert-0a.pem",
            "https://keys.eu.example.com.evil.example/Cert-0a.pem",
            "https://keys.evil.example/x.example.com/Cert-0a.pem",
            "https://keys.a.b.example.com/Cert-0a.pem",
            "https://keys..example.com/Cert-0a.pem",
            "https://user@keys.eu.example.com/Cert-0a.pem",
            "https://keys.eu.example.com:8443/Cert-0a.pem",
            "https://keys.eu.example.com/Cert-0a.pem?x",
            "https://keys.eu.example.com/Cert-0a.pem#x",
            "https://keys.eu.example.com/../Cert-0a.pem",
            "https://keys.eu.example.com/Cert-%2e.pem",
            "https://keys.eu.example.com/bucket/Cert-0a.pem",
            "https://keys.eu.example.com/Cert-.pem",
            "https://keys.eu.example.com\\@evil.example/Cert-0a.pem",
        ] {
            assert!(!shape.fits(address), "{address}");
        }
    }

    #[test]
    fn a_set_is_fetched_whole() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let keys =
            RemoteKeys::new(Ids::InSet, Arc::new(move |_, _| count.fetch_add(1, Ordering::Relaxed) < usize::MAX));
        keys.prepare();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        keys.put_set(vec![("a".into(), key()), ("b".into(), key())], "", at(1));
        assert!(keys.find("a", at(2)).is_ok() && keys.find("b", at(2)).is_ok());
        assert_eq!(keys.find("c", at(2)).map(drop), Err(Fault::KeyNotLoaded.into()));
        keys.put_set(vec![("a".into(), key())], "c", at(3));
        assert_eq!(keys.find("c", at(4)).map(drop), Err(Rejection::KeyIdUnknown.into()));
        assert_eq!(keys.find("b", at(4)).map(drop), Err(Fault::KeyNotLoaded.into()), "the set no longer has it");
        assert_eq!(keys.find("a b", at(4)).map(drop), Err(Rejection::KeyIdUnknown.into()));
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
