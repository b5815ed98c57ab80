//! What a million claims take, and what a million forgeries do not. An executable of its own, because its memory is what
//! is measured.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![cfg(target_os = "linux")]

use hookwarden::{
    admission::State as _,
    check,
    clock::{Clock, UnixSeconds},
    config::{self, Context},
    delivery::{Body, Delivery, Headers},
    replay::{Claim, Claimed, Digests, Holder, OnDuplicate, ReplayKey, ReplayRule, StoreFailure},
    store::{MAX_CLAIMS, Store},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Held by whoever's memory and time are measured.
static ALONE: Mutex<()> = Mutex::new(());

/// The most that the whole process may hold, in KiB.
const BOUND: usize = 96 << 10;

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak of resident memory");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn claim(n: u32) -> Claim {
    Claim {
        key: ReplayKey::new("endpoint", Digests::Lasting.of([n.to_be_bytes().as_slice()])),
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
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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

const CONFIGURATION: &str = r#"
endpoints:
  e:
    on_duplicate: deny
    scheme:
      hmac: { hash: sha256, signed_content: "{body}", signature: { header: x-signature, encoding: hex } }
    secrets: [{ id: a, inline: a secret of this test }]
"#;

#[test]
fn a_million_forgeries_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Without optimisation they would take a minute.
    let count = if cfg!(debug_assertions) { 50_000_u32 } else { 1_000_000 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (store, now) = (Store::in_memory(), Clock::fixed(UnixSeconds(1_760_000_000)).now());
    let endpoints = config::parse("e", CONFIGURATION.as_bytes(), &Context::new(now)).unwrap().compiled.endpoints;
    let signature = "00".repeat(32);
    for n in 0..count {
        let body = n.to_be_bytes();
        let delivery = Delivery {
            method: "POST",
            target: "/e",
            host: "h",
            headers: Headers::from_lines(std::iter::once((b"x-signature".as_slice(), signature.as_bytes())).collect()),
            body: Body::Whole(&body),
            peer: None,
            route_endpoint: Some("e"),
        };
        let outcome = runtime.block_on(check::check(&delivery, now, &endpoints, &store));
        assert_eq!(outcome.decision.reason(), "signature_mismatch");
    }
    println!("measured: {count} forgeries leave {} claims and {} leases", store.claim_count(), store.lease_count());
    assert_eq!((store.claim_count(), store.lease_count()), (0, 0));
}
