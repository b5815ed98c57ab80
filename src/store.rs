//! Where state lives: memory, memory with a file behind it, or a server that replicas share.
//!
//! With a file, lookups never leave memory: the file only makes what is kept outlive the process, and it is on disk
//! before the client is told of it. With a server, memory holds what was heard of it, and decides alone where the server
//! does not answer and the endpoint wants that. Expiry follows the monotonic clock; the wall clock is read once, when a file is opened, to
//! learn how much of each lease is left.

mod claims;
mod file;
mod guesses;
mod memory;
mod redis;

pub use claims::MAX_CLAIMS;
pub use guesses::MAX_GUESSES;
pub use memory::MAX_LEASES;
pub use redis::{Credentials, RedisConfig, Servers};

use crate::{
    admission::{Standing, State},
    clock::{Clock, Now},
    decision::Fault,
    replay::{Claim, ClaimId, Claimed, Conclusion, Digests, OnDuplicate, StoreFailure},
    scheme::ip_lease::{Grant, Tenant},
    secret::Secret,
};
use anyhow::Context as _;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a delivery whose twin is at the upstream waits for the outcome, and how often it looks.
const OUTCOME_WAIT: Duration = Duration::from_secs(1);
const OUTCOME_STEP: Duration = Duration::from_millis(20);

/// Which store, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Forgotten when the process ends.
    Memory,
    /// Kept in an embedded database file.
    File(PathBuf),
    /// Shared by replicas.
    Redis(Arc<RedisConfig>),
}

/// What is behind memory.
#[derive(Debug)]
enum Behind {
    Nothing,
    File(file::File),
    Redis(Box<redis::Redis>),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    leases: memory::Leases,
    claims: claims::Claims,
    guesses: guesses::Guesses,
    behind: Behind,
    /// Secrets that were read from the file, until somebody takes them.
    learned: Mutex<Vec<(String, Secret)>>,
}

impl Store {
    /// Opens a store and reads what it holds.
    pub fn open(kind: &StoreKind, now: Now) -> anyhow::Result<Self> {
        match kind {
            StoreKind::Memory => Ok(Self::in_memory()),
            StoreKind::File(path) => {
                Self::on_file(path, now).with_context(|| format!("cannot open the store `{}`", path.display()))
            }
            StoreKind::Redis(config) => {
                let redis = redis::Redis::new(config).context("cannot use the shared store")?;
                Ok(Self { behind: Behind::Redis(Box::new(redis)), ..Self::in_memory() })
            }
        }
    }

    /// How what was signed is digested for this store. One that nobody else reads needs nothing that anybody could make.
    pub fn digests(&self) -> anyhow::Result<Digests> {
        match &self.behind {
            Behind::Nothing => Digests::of_this_process(),
            Behind::File(_) | Behind::Redis(_) => Ok(Digests::Lasting),
        }
    }

    /// A store that is forgotten with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            leases: memory::Leases::default(),
            claims: claims::Claims::new(MAX_CLAIMS),
            guesses: guesses::Guesses::default(),
            behind: Behind::Nothing,
            learned: Mutex::default(),
        }
    }

    fn on_file(path: &Path, now: Now) -> anyhow::Result<Self> {
        let (file, file::Contents { leases: kept, learned, claims: kept_claims }) = file::File::open(path)?;
        let leases = memory::Leases::default();
        // Those that are held come first, so that no number of those that are over takes their room.
        let crowded = kept.len() > MAX_LEASES;
        let (held, over): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|lease| lease.remaining(now.wall) > Duration::ZERO);
        for lease in held.into_iter().chain(over) {
            let remaining = lease.remaining(now.wall);
            leases.restore(lease.tenant, remaining, now);
        }
        if crowded {
            file.sweep(now.wall);
        }
        let claims = claims::Claims::new(MAX_CLAIMS);
        let lost = kept_claims.iter().filter(|claim| !claims.restore(claim, now)).count();
        if lost > 0 {
            tracing::error!(lost, "the file holds more claims than may be held; replays of these would pass");
        }
        Ok(Self { leases, claims, behind: Behind::File(file), learned: Mutex::new(learned), ..Self::in_memory() })
    }

    /// The secrets that endpoints learned before, once.
    #[must_use]
    pub fn take_learned(&self) -> Vec<(String, Secret)> {
        std::mem::take(&mut *self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the wait of a claim for its outcome; says whether it waited.
    pub async fn conclude(&self, claim: ClaimId, conclusion: Conclusion) -> bool {
        let waited = self.claims.conclude(claim, conclusion);
        match &self.behind {
            Behind::File(file) if waited => {
                if file.conclude(claim, conclusion).await.is_err() {
                    // In memory it is concluded. After a restart it would be unknown, which costs protection and no
                    // delivery.
                    tracing::warn!("an outcome could not be written");
                }
                true
            }
            // The claim may have been made by another replica, and its outcome come here.
            Behind::Redis(redis) => redis.conclude(claim, conclusion).await || waited,
            Behind::Nothing | Behind::File(_) => waited,
        }
    }

    /// Looks after the connection to a shared store, for ever. `learned` takes the secrets that any replica learned.
    pub async fn attend(&self, clock: Clock, learned: impl Fn(Vec<(String, Secret)>)) {
        if let Behind::Redis(redis) = &self.behind {
            redis.attend(clock, learned).await;
        }
    }

    /// Comes back when a shared store was tried for the first time, while somebody attends to it.
    pub async fn tried(&self) {
        if let Behind::Redis(redis) = &self.behind {
            redis.tried().await;
        }
    }

    /// Whether what is behind memory, if anything is, took the last change.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.behind {
            Behind::Nothing => true,
            Behind::File(file) => file.is_up(),
            Behind::Redis(redis) => redis.is_up(),
        }
    }

    /// How many claims are remembered.
    #[must_use]
    pub fn claim_count(&self) -> usize {
        self.claims.count()
    }

    /// How many leases are held or not yet reported as over.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.leases.count()
    }
}

impl Store {
    /// Claims, and does not wait for anybody's outcome.
    ///
    /// What waits for a disk or another machine has its room elsewhere, here and below: a check that needs neither does not
    /// carry it along.
    async fn claim_once(&self, claim: &Claim, now: Now) -> Result<Claimed, Fault> {
        match &self.behind {
            Behind::Nothing => self.claims.claim(claim, now),
            Behind::File(file) => {
                let claimed = self.claims.claim(claim, now)?;
                if matches!(claimed, Claimed::First | Claimed::Again | Claimed::Unknown)
                    && let Err(fault) = Box::pin(file.claim(claim, now)).await
                    && claim.rule.store_failure == StoreFailure::Deny
                {
                    self.claims.withdraw(claim.key);
                    return Err(fault);
                }
                Ok(claimed)
            }
            Behind::Redis(redis) => {
                // What is settled stays that, whatever the server has forgotten since.
                if self.claims.is_settled(claim, now) {
                    return Ok(Claimed::Settled);
                }
                match Box::pin(redis.claim(claim, now)).await {
                    Ok(claimed) => {
                        self.claims.note(claim, claimed, now);
                        Ok(claimed)
                    }
                    Err(_) if claim.rule.store_failure == StoreFailure::LocalOnly => self.claims.claim(claim, now),
                    Err(fault) => Err(fault),
                }
            }
        }
    }
}

impl State for Store {
    async fn standing(&self, tenant: &Tenant, now: Now) -> Result<Standing, Fault> {
        let standing = self.leases.standing(tenant, now);
        match &self.behind {
            Behind::File(file) if standing == Standing::Over => file.forget(tenant.clone()),
            // A lease that is held is held until its end, whatever the server says meanwhile. What is over here may have
            // been granted anew elsewhere.
            Behind::Redis(redis) if standing != Standing::Held => {
                let (standing, left) = Box::pin(redis.standing(tenant)).await?;
                if standing == Standing::Held {
                    self.leases.restore(tenant.clone(), left, now);
                }
                return Ok(standing);
            }
            Behind::Nothing | Behind::File(_) | Behind::Redis(_) => {}
        }
        Ok(standing)
    }

    fn hear(&self, client: IpAddr, wrong: bool, now: Now) -> bool {
        self.guesses.hear(client, wrong, now)
    }

    async fn claim(&self, claim: &Claim, now: Now) -> Result<Claimed, Fault> {
        let mut waited = Duration::ZERO;
        loop {
            let claimed = self.claim_once(claim, now).await?;
            // A provider that tries again at once is faster than the word of what became of its first try. One that
            // is only marked need not wait.
            if claimed != Claimed::Pending || claim.rule.on_duplicate == OnDuplicate::Mark || waited >= OUTCOME_WAIT {
                return Ok(claimed);
            }
            tokio::time::sleep(OUTCOME_STEP).await;
            waited = waited.saturating_add(OUTCOME_STEP);
        }
    }

    async fn remember(&self, endpoint: &str, secret: &[u8]) -> Result<(), Fault> {
        match &self.behind {
            Behind::File(file) => file.remember(endpoint, secret).await,
            Behind::Redis(redis) => redis.learn(endpoint, secret).await,
            // A secret that is only in memory is lost with the process; `check` says so beforehand.
            Behind::Nothing => Ok(()),
        }
    }

    async fn grant(&self, grant: &Grant, now: Now) -> Result<(), Fault> {
        let dropped = self.leases.make_room(&grant.tenant, now)?;
        match &self.behind {
            Behind::File(file) => {
                if dropped {
                    file.sweep(now.wall);
                }
                file.keep(grant, now).await?;
            }
            Behind::Redis(redis) => redis.grant(grant, MAX_LEASES).await?,
            Behind::Nothing => {}
        }
        self.leases.grant(grant, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::UnixSeconds, decision::Reply};

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(i64::try_from(seconds).unwrap()), monotonic: Duration::from_secs(seconds) }
    }

    fn grant(last: u32, ttl: u64) -> Grant {
        let tenant = Tenant { endpoint: "e".into(), address: std::net::Ipv4Addr::from(last).into() };
        Grant { tenant, ttl: Duration::from_secs(ttl), granted: Reply::default() }
    }

    /// However many rows are over, the held ones are read back, and the others go from the file.
    #[test]
    fn leases_that_are_over_take_no_room_from_those_that_are_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        drop(Store::open(&StoreKind::File(path.clone()), at(0)).unwrap());
        let over = (0..u32::try_from(MAX_LEASES).unwrap()).map(|last| (grant(last, 1).tenant, UnixSeconds(1)));
        file::plant(&path, over.chain([(grant(u32::MAX, 1).tenant, UnixSeconds(1000))]));

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = open_when_free(&path, at(10));
        let held = runtime.block_on(store.standing(&grant(u32::MAX, 1).tenant, at(10)));
        assert_eq!(held, Ok(Standing::Held));
        runtime.block_on(store.grant(&grant(77_777, 60), at(10))).unwrap();
        drop(store);
        assert_eq!(open_when_free(&path, at(10)).lease_count(), 2);
    }

    /// The thread of a store that was dropped may still be closing the file.
    fn open_when_free(path: &Path, now: Now) -> Store {
        loop {
            match Store::open(&StoreKind::File(path.to_owned()), now) {
                Ok(store) => return store,
                Err(error) if format!("{error:#}").contains("already open") => std::thread::yield_now(),
                Err(error) => panic!("{error:#}"),
            }
        }
    }

    fn claim(what: u8, holder: &str, awaits_outcome: bool) -> Claim {
        let rule = crate::replay::ReplayRule {
            on_duplicate: OnDuplicate::Mark,
            remember: Duration::from_secs(600),
            outcome_within: awaits_outcome.then_some(Duration::from_secs(60)),
            store_failure: StoreFailure::Deny,
        };
        let key = crate::replay::ReplayKey::from_bytes([what; 16]);
        Claim { key, holder: crate::replay::Holder::of(holder.as_bytes()), rule, signed_at: None }
    }

    /// What was delivered before a restart is known after it, as long as it was promised by the calendar; what was
    /// under way waits again, for the same holder.
    #[test]
    fn claims_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |store: &Store, claim: &Claim, now: Now| runtime.block_on(State::claim(store, claim, now));
        let id = |claim: Claim| ClaimId { key: claim.key, holder: claim.holder };

        let store = open_when_free(&path, at(1000));
        assert_eq!(ask(&store, &claim(1, "a", false), at(1000)), Ok(Claimed::First));
        assert_eq!(ask(&store, &claim(2, "a", true), at(1000)), Ok(Claimed::First));
        assert_eq!(ask(&store, &claim(3, "a", true), at(1000)), Ok(Claimed::First));
        assert!(runtime.block_on(store.conclude(id(claim(3, "a", true)), Conclusion::Settled)));
        assert_eq!(ask(&store, &claim(4, "a", true), at(1000)), Ok(Claimed::First));
        assert!(runtime.block_on(store.conclude(id(claim(4, "a", true)), Conclusion::Released)));
        assert_eq!(ask(&store, &claim(5, "a", true), at(1000)), Ok(Claimed::First));
        assert!(runtime.block_on(store.conclude(id(claim(5, "a", true)), Conclusion::Unknown)));
        drop(store);

        // The process is new, so its monotonic time begins again.
        let after = |seconds: u64| Now { monotonic: Duration::from_secs(seconds - 1100), ..at(seconds) };
        let store = open_when_free(&path, after(1100));
        assert_eq!(ask(&store, &claim(1, "b", false), after(1100)), Ok(Claimed::Settled));
        assert_eq!(ask(&store, &claim(2, "b", true), after(1100)), Ok(Claimed::Pending));
        assert!(runtime.block_on(store.conclude(id(claim(2, "a", true)), Conclusion::Settled)));
        assert_eq!(ask(&store, &claim(2, "b", true), after(1101)), Ok(Claimed::Settled));
        assert_eq!(ask(&store, &claim(3, "b", true), after(1100)), Ok(Claimed::Settled));
        assert_eq!(ask(&store, &claim(4, "b", true), after(1100)), Ok(Claimed::First));
        assert_eq!(ask(&store, &claim(5, "b", true), after(1100)), Ok(Claimed::Unknown));
        assert_eq!(ask(&store, &claim(1, "b", false), after(1599)), Ok(Claimed::Settled));
        drop(store);

        // By a calendar that went back ten years nothing is over, and nothing lasts longer than it was to.
        let store = open_when_free(&path, Now { wall: UnixSeconds(-315_360_000), monotonic: Duration::ZERO });
        let back = |seconds: u64| Now { wall: UnixSeconds(-315_360_000), monotonic: Duration::from_secs(seconds) };
        assert_eq!(ask(&store, &claim(3, "b", true), back(599)), Ok(Claimed::Settled));
        assert_eq!(ask(&store, &claim(3, "b", true), back(600 + 75)), Ok(Claimed::First));
        drop(store);

        // And by one that went on ten years everything is.
        let store = open_when_free(&path, Now { wall: UnixSeconds(315_360_000), monotonic: Duration::ZERO });
        assert_eq!(store.claim_count(), 0);
    }
}
