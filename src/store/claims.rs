//! Claims in memory: bounded, never evicted while they are remembered, and forgotten without looking for them.
//!
//! Claims that are remembered equally long lie in slots by the time they were made; a slot is dropped whole when the
//! youngest claim in it is over. So expiry costs nothing per claim, at the price of remembering one for up to a ninth
//! longer. Time is monotonic: no step of the calendar ends a claim early.
//!
//! A claim takes 28 bytes. The maps are split, because one that grows holds everything twice while it does, and
//! everybody waits.

use super::file::KeptClaim;
use crate::{
    clock::Now,
    decision::Fault,
    replay::{Claim, ClaimId, Claimed, Conclusion, Holder, ReplayKey},
};
use foldhash::{SharedSeed, fast::SeedableRandomState};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::BuildHasher as _,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The most claims held at once, unless `limits.claims` says otherwise.
pub const MAX_CLAIMS: usize = 1_000_000;
/// Slots in the time a claim is remembered.
const SLOTS: u64 = 8;
const SHARDS: usize = 16;

/// Where monotonic time starts here: claims that are read from a file were made before the process was.
const BEFORE: u64 = 60 * 24 * 3600;

/// The moment, counted from before the process started.
fn seconds(now: Now) -> u64 {
    now.monotonic.as_secs().saturating_add(BEFORE)
}

/// Claims, by what is claimed.
#[derive(Debug)]
pub(super) struct Claims {
    shards: [Mutex<Shard>; SHARDS],
    /// Says in which of them a key is.
    shard_of: SeedableRandomState,
    count: AtomicUsize,
    limit: usize,
}

/// By how long a claim is remembered, in seconds.
#[derive(Debug, Default)]
struct Shard(BTreeMap<u64, VecDeque<Slot>>);

#[derive(Debug)]
struct Slot {
    /// Number of slot lengths since the beginning of time.
    number: u64,
    claims: HashMap<ReplayKey, Kept, SeedableRandomState>,
}

/// How keys are hashed: by secrets of the process, and one of each slot's own and of the choice of shards. A key is a digest,
/// but where the store outlives the process everybody can compute it: who can sign, as any tenant of a provider can, would
/// look for contents whose keys share whatever bytes chose their place, and make every claim walk past all of them.
///
/// foldhash multiplies the halves of a key, each hidden by a secret number, and folds the product, so that without those
/// nobody knows which keys fall together. It is no cryptography, and need not be: of a hash nothing is seen but how long a
/// claim takes, by nanoseconds of a check that crosses a network, and the slot's number goes with the slot. `SipHash`
/// would resist more, at twenty nanoseconds for each of the nine slots that a claim asks; this takes one.
fn seeded() -> SeedableRandomState {
    static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));
    SeedableRandomState::with_seed(random(), &SHARED)
}

/// A number that the system's random bytes are behind, which foldhash's own seeds are not.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(())
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    holder: [u8; 8],
    /// Monotonic seconds since which the outcome is awaited.
    since: u32,
}

/// Stands for "the outcome is known".
const SETTLED: u32 = u32::MAX;
/// Stands for "the outcome will never be known".
const LOST: u32 = u32::MAX - 1;

impl Kept {
    fn new(holder: Holder, awaits_outcome: bool, now: Now) -> Self {
        let moment = u32::try_from(now.monotonic.as_secs()).unwrap_or(LOST).min(LOST);
        Self { holder: holder.bytes(), since: if awaits_outcome { moment } else { SETTLED } }
    }

    /// What another claim to the same comes to.
    fn meets(self, claim: &Claim, now: Now) -> Claimed {
        if Holder::from_bytes(self.holder).is(claim.holder) {
            return Claimed::Again;
        }
        match self.since {
            SETTLED => Claimed::Settled,
            LOST => Claimed::Unknown,
            since => {
                let waited = now.monotonic.saturating_sub(Duration::from_secs(u64::from(since)));
                let patience = claim.rule.outcome_within.unwrap_or(Duration::ZERO);
                if waited < patience { Claimed::Pending } else { Claimed::Unknown }
            }
        }
    }
}

impl Shard {
    /// Drops the slots that are over; says how many claims went.
    fn expire(&mut self, now: Now) -> usize {
        let mut gone = 0_usize;
        for (remember, slots) in &mut self.0 {
            let length = slot_length(*remember);
            let is_over = |slot: &Slot| {
                let ends = slot.number.saturating_add(1).saturating_mul(length).saturating_add(*remember);
                ends <= seconds(now)
            };
            while slots.front().is_some_and(is_over) {
                gone = gone.saturating_add(slots.pop_front().map_or(0, |slot| slot.claims.len()));
            }
        }
        gone
    }

    fn find(&mut self, key: ReplayKey) -> Option<&mut Kept> {
        self.0.values_mut().flatten().find_map(|slot| slot.claims.get_mut(&key))
    }

    /// Keeps what was claimed at `made`.
    fn insert(&mut self, key: ReplayKey, remember: Duration, kept: Kept, made: u64) {
        let remember = remember.as_secs().max(1);
        let number = made.checked_div(slot_length(remember)).unwrap_or(0);
        let slots = self.0.entry(remember).or_default();
        // Only what is read from a file goes anywhere but to the end.
        let at = slots.partition_point(|slot| slot.number < number);
        if slots.get(at).is_none_or(|slot| slot.number != number) {
            slots.insert(at, Slot { number, claims: HashMap::with_hasher(seeded()) });
        }
        if let Some(slot) = slots.get_mut(at) {
            slot.claims.insert(key, kept);
        }
    }

    fn remove(&mut self, key: ReplayKey) -> bool {
        self.0.values_mut().flatten().any(|slot| slot.claims.remove(&key).is_some())
    }
}

/// Seconds that one slot takes in.
fn slot_length(remember: u64) -> u64 {
    remember.div_ceil(SLOTS).max(1)
}

impl Claims {
    pub(super) fn new(limit: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, shard_of: seeded(), count: AtomicUsize::new(0), limit }
    }

    /// Nobody chooses in which shard a key is, or all could be in one, whose growth holds up whoever claims. A panic elsewhere
    /// leaves nothing half written: every change is one insert or remove.
    fn shard(&self, key: ReplayKey) -> MutexGuard<'_, Shard> {
        let [.., last] = self.shard_of.hash_one(key).to_be_bytes();
        let index = usize::from(last).checked_rem(SHARDS).unwrap_or(0);
        let shard = self.shards.get(index).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims to be the first.
    pub(super) fn claim(&self, claim: &Claim, now: Now) -> Result<Claimed, Fault> {
        let mut shard = self.shard(claim.key);
        let gone = shard.expire(now);
        self.count.fetch_sub(gone, Ordering::Relaxed);
        let mine = Kept::new(claim.holder, claim.rule.outcome_within.is_some(), now);
        if let Some(kept) = shard.find(claim.key) {
            let claimed = kept.meets(claim, now);
            if claimed == Claimed::Unknown {
                *kept = mine;
            }
            return Ok(claimed);
        }
        if !self.take_place() {
            // Shards that nobody asks keep what is over; now its room is wanted.
            drop(shard);
            for shard in &self.shards {
                let gone = shard.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
                self.count.fetch_sub(gone, Ordering::Relaxed);
            }
            shard = self.shard(claim.key);
            if shard.find(claim.key).is_some() {
                drop(shard);
                return self.claim(claim, now);
            }
            if !self.take_place() {
                return Err(Fault::StoreFull);
            }
        }
        shard.insert(claim.key, claim.rule.remember, mine, seconds(now));
        Ok(Claimed::First)
    }

    /// Counts one more, if there is room.
    fn take_place(&self) -> bool {
        let free = self.count.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !free {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        free
    }

    /// Whether this is known to have been delivered for another one.
    pub(super) fn is_settled(&self, claim: &Claim, now: Now) -> bool {
        let mut shard = self.shard(claim.key);
        let gone = shard.expire(now);
        self.count.fetch_sub(gone, Ordering::Relaxed);
        shard.find(claim.key).is_some_and(|kept| kept.meets(claim, now) == Claimed::Settled)
    }

    /// Notes what was heard of a claim elsewhere, if there is room.
    pub(super) fn note(&self, claim: &Claim, claimed: Claimed, now: Now) {
        let kept = match claimed {
            Claimed::First | Claimed::Unknown => Kept::new(claim.holder, claim.rule.outcome_within.is_some(), now),
            Claimed::Settled => Kept::new(Holder::NOBODY, false, now),
            Claimed::Again | Claimed::Pending => return,
        };
        let mut shard = self.shard(claim.key);
        if let Some(known) = shard.find(claim.key) {
            *known = kept;
        } else if self.take_place() {
            shard.insert(claim.key, claim.rule.remember, kept, seconds(now));
        }
    }

    /// Ends the wait for an outcome, for the one who waits; says whether it did.
    pub(super) fn conclude(&self, ClaimId { key, holder }: ClaimId, conclusion: Conclusion) -> bool {
        let mut shard = self.shard(key);
        let Some(kept) = shard.find(key) else { return false };
        if kept.since == SETTLED || !Holder::from_bytes(kept.holder).is(holder) {
            return false;
        }
        match conclusion {
            Conclusion::Settled => kept.since = SETTLED,
            Conclusion::Unknown => kept.since = LOST,
            Conclusion::Released => {
                shard.remove(key);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        true
    }

    /// Puts back what was read from a file; says whether there was room.
    pub(super) fn restore(&self, claim: &KeptClaim, now: Now) -> bool {
        let left = claim.remaining(now.wall);
        if left.is_zero() {
            return true;
        }
        if !self.take_place() {
            return false;
        }
        let kept = match claim.conclusion {
            None | Some(Conclusion::Released) => Kept::new(claim.id.holder, true, now),
            Some(Conclusion::Settled) => Kept::new(claim.id.holder, false, now),
            Some(Conclusion::Unknown) => Kept { since: LOST, ..Kept::new(claim.id.holder, true, now) },
        };
        let made = seconds(now).saturating_sub(claim.length.saturating_sub(left).as_secs());
        self.shard(claim.id.key).insert(claim.id.key, claim.length, kept, made);
        true
    }

    /// Takes a claim back that could not be kept.
    pub(super) fn withdraw(&self, key: ReplayKey) {
        if self.shard(key).remove(key) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many are held, or over and not yet dropped.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::UnixSeconds,
        replay::{Digests, OnDuplicate, ReplayRule, StoreFailure},
    };

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(0), monotonic: Duration::from_secs(seconds) }
    }

    fn claim(what: u32, holder: &str) -> Claim {
        let rule = ReplayRule {
            on_duplicate: OnDuplicate::Deny,
            remember: Duration::from_secs(600),
            outcome_within: Some(Duration::from_secs(60)),
            store_failure: StoreFailure::Deny,
        };
        let key = ReplayKey::new("e", Digests::Lasting.of([what.to_be_bytes().as_slice()]));
        Claim { key, holder: Holder::of(holder.as_bytes()), rule, signed_at: None }
    }

    fn id(what: u32, holder: &str) -> ClaimId {
        let Claim { key, holder, .. } = claim(what, holder);
        ClaimId { key, holder }
    }

    fn at_once(claim: Claim) -> Claim {
        Claim { rule: ReplayRule { outcome_within: None, ..claim.rule }, ..claim }
    }

    #[test]
    fn the_first_waits_for_its_outcome_and_everybody_else_for_the_first() {
        let claims = Claims::new(10);
        assert_eq!(claims.claim(&claim(1, "a"), at(0)), Ok(Claimed::First));
        assert_eq!(claims.claim(&claim(1, "a"), at(1)), Ok(Claimed::Again), "the proxy asks twice");
        assert_eq!(claims.claim(&claim(1, "b"), at(1)), Ok(Claimed::Pending));
        assert!(!claims.conclude(id(1, "b"), Conclusion::Released), "b is not who waits");
        assert!(claims.conclude(id(1, "a"), Conclusion::Settled));
        assert_eq!(claims.claim(&claim(1, "b"), at(2)), Ok(Claimed::Settled));
        assert!(!claims.conclude(id(1, "a"), Conclusion::Released), "what is settled stays");
        assert_eq!(claims.claim(&claim(1, "b"), at(599)), Ok(Claimed::Settled));
    }

    #[test]
    fn what_the_upstream_did_not_take_is_free_again() {
        let claims = Claims::new(10);
        claims.claim(&claim(1, "a"), at(0)).unwrap();
        assert!(claims.conclude(id(1, "a"), Conclusion::Released));
        assert_eq!(claims.count(), 0);
        assert_eq!(claims.claim(&claim(1, "b"), at(1)), Ok(Claimed::First));
    }

    #[test]
    fn an_outcome_that_never_comes_is_unknown_and_whoever_asks_then_waits_himself() {
        let claims = Claims::new(10);
        claims.claim(&claim(1, "a"), at(0)).unwrap();
        assert_eq!(claims.claim(&claim(1, "b"), at(59)), Ok(Claimed::Pending));
        assert_eq!(claims.claim(&claim(1, "b"), at(60)), Ok(Claimed::Unknown));
        assert_eq!(claims.claim(&claim(1, "c"), at(61)), Ok(Claimed::Pending), "b's is awaited now");
        assert!(claims.conclude(id(1, "b"), Conclusion::Unknown));
        assert_eq!(claims.claim(&claim(1, "c"), at(62)), Ok(Claimed::Unknown));
    }

    #[test]
    fn where_nobody_tells_outcomes_a_claim_is_settled_at_once() {
        let claims = Claims::new(10);
        assert_eq!(claims.claim(&at_once(claim(1, "a")), at(0)), Ok(Claimed::First));
        assert_eq!(claims.claim(&at_once(claim(1, "a")), at(0)), Ok(Claimed::Again));
        assert_eq!(claims.claim(&at_once(claim(1, "b")), at(0)), Ok(Claimed::Settled));
        assert_eq!(claims.claim(&at_once(claim(1, "")), at(0)), Ok(Claimed::Settled));
    }

    #[test]
    fn a_claim_is_remembered_as_long_as_promised_and_hardly_longer() {
        for start in [0_u64, 1, 37, 74, 75, 600, 1_000_000] {
            let claims = Claims::new(10);
            let what = u32::try_from(start).unwrap();
            assert_eq!(claims.claim(&at_once(claim(what, "a")), at(start)), Ok(Claimed::First));
            assert_eq!(claims.claim(&at_once(claim(what, "b")), at(start + 599)), Ok(Claimed::Settled), "{start}");
            assert_eq!(claims.claim(&at_once(claim(what, "b")), at(start + 600 + 75)), Ok(Claimed::First), "{start}");
            claims.withdraw(claim(what, "b").key);
            assert_eq!(claims.count(), 0);
        }
    }

    #[test]
    fn full_means_no_new_ones_and_nobody_is_forgotten_for_them() {
        let claims = Claims::new(100);
        for what in 0..100 {
            assert_eq!(claims.claim(&at_once(claim(what, "a")), at(0)), Ok(Claimed::First));
        }
        assert_eq!(claims.claim(&at_once(claim(100, "a")), at(1)), Err(Fault::StoreFull));
        assert_eq!(claims.claim(&at_once(claim(7, "b")), at(1)), Ok(Claimed::Settled));
        let free = (1000..2000).filter(|what| claims.claim(&at_once(claim(*what, "a")), at(700)).is_ok()).count();
        assert_eq!(free, 100);
    }

    /// A reload may change how long an endpoint remembers; what was claimed before is still known.
    #[test]
    fn claims_of_other_lengths_are_found_too() {
        let claims = Claims::new(10);
        claims.claim(&at_once(claim(1, "a")), at(0)).unwrap();
        let mut longer = at_once(claim(1, "b"));
        longer.rule.remember = Duration::from_secs(3600);
        assert_eq!(claims.claim(&longer, at(1)), Ok(Claimed::Settled));
    }

    /// Whoever can make keys that are alike in half of their bytes gains nothing by it: they fall as far apart as any, and where
    /// is another matter in each slot.
    #[test]
    fn keys_that_were_chosen_do_not_fall_together() {
        let alike = |half: std::ops::Range<usize>, what| {
            let mut bytes = *claim(what, "").key.bytes();
            bytes[half].fill(7);
            ReplayKey::from_bytes(bytes)
        };
        for half in [0..8, 8..16] {
            let keys: Vec<_> = (0..2048).map(|what| alike(half.clone(), what)).collect();
            let mut places = std::collections::HashSet::new();
            for _ in 0..8 {
                let (state, mut baskets) = (seeded(), std::collections::HashSet::new());
                baskets.extend(keys.iter().map(|key| state.hash_one(key) % 4096));
                // Balls that are thrown into twice as many baskets fill four for every five of them.
                assert!(baskets.len() > 1500, "{half:?}: {}", baskets.len());
                places.insert(state.hash_one(keys[0]));
            }
            assert_eq!(places.len(), 8, "every slot has secrets of its own");
            let claims = Claims::new(keys.len());
            for key in &keys {
                claims.shard(*key).0.entry(1).or_default();
            }
            assert!(claims.shards.iter().all(|shard| !shard.lock().unwrap().0.is_empty()), "every shard has some");
        }
    }
}
