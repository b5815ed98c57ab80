//! What a million claims take. An executable of its own, because its memory is what is measured.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![cfg(target_os = "linux")]

use hookwarden::{
    admission::State as _,
    clock::{Clock, UnixSeconds},
    replay::{Claim, Claimed, Holder, OnDuplicate, ReplayKey, ReplayRule, SignedDigest, StoreFailure},
    store::{MAX_CLAIMS, Store},
};
use std::time::{Duration, Instant};

/// The most that the whole process may hold, in KiB.
const BOUND: usize = 96 << 10;

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak of resident memory");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn claim(n: u32) -> Claim {
    Claim {
        key: ReplayKey::new("endpoint", SignedDigest::of([n.to_be_bytes().as_slice()])),
        holder: Holder::of(&n.to_be_bytes()),
        rule: ReplayRule {
            on_duplicate: OnDuplicate::Deny,
            remember: Duration::from_secs(660),
            outcome_within: None,
            store_failure: StoreFailure::Deny,
        },
        signed_at: None,
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn a_million_claims_fit_and_none_is_lost() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (store, now) = (Store::in_memory(), Clock::fixed(UnixSeconds(1_760_000_000)).now());
    let count = u32::try_from(MAX_CLAIMS).unwrap();
    let mut nanoseconds: Vec<u32> = Vec::with_capacity(MAX_CLAIMS);
    for n in 0..count {
        let claim = claim(n);
        let begun = Instant::now();
        let claimed = runtime.block_on(store.claim(&claim, now));
        nanoseconds.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        assert_eq!(claimed, Ok(Claimed::First));
    }
    let resident = resident_kib();
    assert_eq!(store.claim_count(), MAX_CLAIMS);
    assert!(runtime.block_on(store.claim(&claim(count), now)).is_err(), "one more is refused, not one less kept");
    for n in (0..count).step_by(997) {
        let twin = Claim { holder: Holder::NOBODY, ..claim(n) };
        assert_eq!(runtime.block_on(store.claim(&twin, now)), Ok(Claimed::Settled), "{n}");
    }
    nanoseconds.sort_unstable();
    let at = |share: usize| nanoseconds.get(MAX_CLAIMS.saturating_mul(share) / 1000).copied().unwrap_or_default();
    println!(
        "measured: {MAX_CLAIMS} claims: {} MiB resident at most; p50 {} ns, p99 {} ns, p99.9 {} ns a claim",
        resident >> 10,
        at(500),
        at(990),
        at(999)
    );
    assert!(resident <= BOUND, "{resident} KiB");
}
