//! Leases in memory: bounded, and never evicted while they are held.

use crate::{
    admission::Standing,
    clock::Now,
    decision::Fault,
    scheme::ip_lease::{Grant, Tenant},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The most leases held at once. A token holder with many addresses cannot push out anybody else's.
pub const MAX_LEASES: usize = 10_000;

/// Tenants and the monotonic moment their lease ends.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<Tenant, Duration>>);

impl Leases {
    /// A panic elsewhere cannot leave the map half written: every change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self, tenant: &Tenant, now: Now) -> Standing {
        let mut leases = self.lock();
        match leases.get(tenant) {
            None => Standing::None,
            Some(ends) if now.monotonic < *ends => Standing::Held,
            Some(_) => {
                leases.remove(tenant);
                Standing::Over
            }
        }
    }

    /// Makes sure a grant for `tenant` will fit, dropping only what is over. Says whether anything was dropped.
    pub(super) fn make_room(&self, tenant: &Tenant, now: Now) -> Result<bool, Fault> {
        let mut leases = self.lock();
        let before = leases.len();
        if before < MAX_LEASES || leases.contains_key(tenant) {
            return Ok(false);
        }
        leases.retain(|_, ends| now.monotonic < *ends);
        if leases.len() >= MAX_LEASES { Err(Fault::StoreFull) } else { Ok(leases.len() < before) }
    }

    pub(super) fn grant(&self, grant: &Grant, now: Now) -> Result<(), Fault> {
        self.make_room(&grant.tenant, now)?;
        self.lock().insert(grant.tenant.clone(), now.monotonic.saturating_add(grant.ttl));
        Ok(())
    }

    /// Puts back a lease read from a file. One that ended while nobody looked is kept as over, to be said once.
    pub(super) fn restore(&self, tenant: Tenant, remaining: Duration, now: Now) {
        let mut leases = self.lock();
        if leases.len() < MAX_LEASES {
            leases.insert(tenant, now.monotonic.saturating_add(remaining));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::UnixSeconds, decision::Reply};

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(0), monotonic: Duration::from_secs(seconds) }
    }

    fn grant(last: u32) -> Grant {
        let tenant = Tenant { endpoint: "e".into(), address: std::net::Ipv4Addr::from(last).into() };
        Grant { tenant, ttl: Duration::from_secs(10), granted: Reply::default() }
    }

    #[test]
    fn a_lease_ends_once_and_is_then_unknown() {
        let leases = Leases::default();
        let tenant = grant(1).tenant;
        assert_eq!(leases.standing(&tenant, at(0)), Standing::None);
        leases.grant(&grant(1), at(0)).unwrap();
        assert_eq!(leases.standing(&tenant, at(9)), Standing::Held);
        assert_eq!(leases.standing(&tenant, at(10)), Standing::Over);
        assert_eq!(leases.standing(&tenant, at(10)), Standing::None);
    }

    #[test]
    fn another_endpoint_knows_nothing_of_it() {
        let leases = Leases::default();
        leases.grant(&grant(1), at(0)).unwrap();
        let elsewhere = Tenant { endpoint: "f".into(), ..grant(1).tenant };
        assert_eq!(leases.standing(&elsewhere, at(0)), Standing::None);
    }

    #[test]
    fn full_means_no_new_ones_until_some_are_over() {
        let leases = Leases::default();
        for last in 0..u32::try_from(MAX_LEASES).unwrap() {
            leases.grant(&grant(last), at(0)).unwrap();
        }
        assert_eq!(leases.grant(&grant(1_000_000), at(5)), Err(Fault::StoreFull));
        assert_eq!(leases.grant(&grant(1), at(5)), Ok(()), "a holder may renew by showing the token again");
        assert_eq!(leases.standing(&grant(2).tenant, at(5)), Standing::Held, "nobody was pushed out");
        assert_eq!(leases.grant(&grant(1_000_000), at(12)), Ok(()));
        assert_eq!(leases.count(), 2);
    }
}
