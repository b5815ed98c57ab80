//! State on disk, in a redb file.
//!
//! One thread owns the database: a commit waits for the disk, and the thread that serves checks must not. Whatever is
//! waiting is written in one transaction, so a slow disk makes each wait longer and not the queue. A change that a
//! client is told of waits for its commit; forgetting does not, because what is over stays over when it is read back.
//!
//! A database that failed once refuses everything after, so it is closed, and opened again with the next change: a
//! disk that has room again is used again, without a restart.

use crate::{
    clock::{Now, UnixSeconds},
    decision::Fault,
    replay::{Claim, ClaimId, Conclusion, Holder, ReplayKey},
    scheme::ip_lease::{Grant, Tenant},
    secret::Secret,
};
use anyhow::{Context as _, bail};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// `(endpoint, address)` → `(wall clock end, whole length)`, both in seconds.
const LEASES: TableDefinition<'_, (&str, &str), (i64, u64)> = TableDefinition::new("leases");
/// What this file is, so that a later release can migrate it and an older one refuses it.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 3;
/// `endpoint` → the secret it learned.
const LEARNED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("learned");
/// What is claimed → `(wall clock end, whole length, holder, state)`.
const CLAIMS: TableDefinition<'_, &[u8; 16], (i64, u64, &[u8; 8], u8)> = TableDefinition::new("claims");
const PENDING: u8 = 0;
const SETTLED: u8 = 1;
const LOST: u8 = 2;

/// Changes waiting for the disk. Beyond it the disk has failed us, and saying so beats queueing.
const QUEUE: usize = 4096;
/// The most changes of one transaction.
const BATCH: usize = 512;
/// How many claims are looked at with each transaction, to drop those that are over.
const SWEPT: usize = 64;

/// A handle on the thread that owns the database.
#[derive(Debug)]
pub(super) struct File {
    jobs: mpsc::SyncSender<Job>,
    up: Arc<AtomicBool>,
}

/// A lease as it was read.
pub(super) struct KeptLease {
    pub(super) tenant: Tenant,
    ends: UnixSeconds,
    length: Duration,
}

/// A claim as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptClaim {
    pub(super) id: ClaimId,
    ends: UnixSeconds,
    pub(super) length: Duration,
    /// Nothing while the outcome is awaited.
    pub(super) conclusion: Option<Conclusion>,
}

/// Everything that was read.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) leases: Vec<KeptLease>,
    pub(super) learned: Vec<(String, Secret)>,
    pub(super) claims: Vec<KeptClaim>,
}

struct Job {
    change: Change,
    done: Option<oneshot::Sender<bool>>,
}

enum Change {
    Lease { tenant: Tenant, ends: UnixSeconds, length: Duration },
    Forget(Tenant),
    SweepLeases(UnixSeconds),
    Learn { endpoint: String, secret: Secret },
    Claim { id: ClaimId, ends: UnixSeconds, length: Duration, awaits_outcome: bool, wall: UnixSeconds },
    Conclude(ClaimId, Conclusion),
}

/// What is left until `ends`, and never more than the whole: a clock set back must not make anything longer than it
/// was.
fn remaining(ends: UnixSeconds, length: Duration, wall: UnixSeconds) -> Duration {
    let left = u64::try_from(ends.0.saturating_sub(wall.0)).unwrap_or(0);
    Duration::from_secs(left).min(length)
}

impl KeptLease {
    pub(super) fn remaining(&self, wall: UnixSeconds) -> Duration {
        remaining(self.ends, self.length, wall)
    }
}

impl KeptClaim {
    pub(super) fn remaining(&self, wall: UnixSeconds) -> Duration {
        remaining(self.ends, self.length, wall)
    }
}

impl File {
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Contents)> {
        let database = create(path)?;
        let contents = read(&database)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let up = Arc::new(AtomicBool::new(true));
        let writer = Writer { path: path.to_owned(), database: Some(database), up: Arc::clone(&up), swept: [0; 16] };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&queue))
            .context("cannot start the store's thread")?;
        Ok((Self { jobs, up }, contents))
    }

    /// Whether the last change was written.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Writes a change; returns when it is on disk.
    async fn write(&self, change: Change) -> Result<(), Fault> {
        let (done, written) = oneshot::channel();
        self.jobs.try_send(Job { change, done: Some(done) }).map_err(|_| Fault::StoreUnavailable)?;
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::StoreUnavailable),
        }
    }

    pub(super) async fn keep(&self, grant: &Grant, now: Now) -> Result<(), Fault> {
        let Grant { tenant, ttl, .. } = grant;
        self.write(Change::Lease { tenant: tenant.clone(), ends: now.wall.plus(*ttl), length: *ttl }).await
    }

    pub(super) async fn remember(&self, endpoint: &str, secret: &[u8]) -> Result<(), Fault> {
        self.write(Change::Learn { endpoint: endpoint.to_owned(), secret: Secret::new(secret.to_vec()) }).await
    }

    pub(super) async fn claim(&self, claim: &Claim, now: Now) -> Result<(), Fault> {
        let Claim { key, holder, rule, .. } = *claim;
        self.write(Change::Claim {
            id: ClaimId { key, holder },
            ends: now.wall.plus(rule.remember),
            length: rule.remember,
            awaits_outcome: rule.outcome_within.is_some(),
            wall: now.wall,
        })
        .await
    }

    pub(super) async fn conclude(&self, claim: ClaimId, conclusion: Conclusion) -> Result<(), Fault> {
        self.write(Change::Conclude(claim, conclusion)).await
    }

    /// Removes a lease that is over, some time.
    pub(super) fn forget(&self, tenant: Tenant) {
        self.write_some_time(Change::Forget(tenant));
    }

    /// Removes all leases that were over at `wall`, some time.
    pub(super) fn sweep(&self, wall: UnixSeconds) {
        self.write_some_time(Change::SweepLeases(wall));
    }

    fn write_some_time(&self, change: Change) {
        if self.jobs.try_send(Job { change, done: None }).is_err() {
            tracing::debug!("the store is busy; what is over stays in the file");
        }
    }
}

/// It may hold secrets, which are nobody else's business.
fn create(path: &Path) -> anyhow::Result<Database> {
    let database = Database::create(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(database)
}

/// Reads everything and brings the file to the current format.
fn read(database: &Database) -> anyhow::Result<Contents> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|format| format.value());
        match format {
            // Format 1 had no learned secrets, format 2 no claims; their tables are made below.
            None | Some(1 | 2) => drop(meta.insert("format", FORMAT)?),
            Some(FORMAT) => {}
            Some(other) => bail!("its format is {other}, and this release reads {FORMAT}"),
        }
        transaction.open_table(LEASES)?;
        transaction.open_table(LEARNED)?;
        transaction.open_table(CLAIMS)?;
    }
    transaction.commit()?;

    let mut contents = Contents::default();
    for row in database.begin_read()?.open_table(LEASES)?.iter()? {
        let (key, value) = row?;
        let ((endpoint, address), (ends, length)) = (key.value(), value.value());
        let address = address.parse().with_context(|| "a lease's address cannot be read")?;
        let tenant = Tenant { endpoint: endpoint.to_owned(), address };
        let (ends, length) = (UnixSeconds(ends), Duration::from_secs(length));
        contents.leases.push(KeptLease { tenant, ends, length });
    }
    for row in database.begin_read()?.open_table(LEARNED)?.iter()? {
        let (endpoint, secret) = row?;
        contents.learned.push((endpoint.value().to_owned(), Secret::new(secret.value().to_vec())));
    }
    for row in database.begin_read()?.open_table(CLAIMS)?.iter()? {
        let (key, value) = row?;
        let (ends, length, holder, state) = value.value();
        contents.claims.push(KeptClaim {
            id: ClaimId { key: ReplayKey::from_bytes(*key.value()), holder: Holder::from_bytes(*holder) },
            ends: UnixSeconds(ends),
            length: Duration::from_secs(length),
            conclusion: match state {
                PENDING => None,
                LOST => Some(Conclusion::Unknown),
                // What is not known is believed to be delivered.
                _ => Some(Conclusion::Settled),
            },
        });
    }
    Ok(contents)
}

/// The thread that owns the database.
struct Writer {
    path: PathBuf,
    database: Option<Database>,
    up: Arc<AtomicBool>,
    /// Up to where claims were looked at.
    swept: [u8; 16],
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut jobs = vec![first];
            while let Some(next) = (jobs.len() < BATCH).then(|| queue.try_recv().ok()).flatten() {
                jobs.push(next);
            }
            let written = self.write(&jobs);
            let is_up = written.is_ok();
            match written {
                Ok(()) if !self.up.load(Ordering::Relaxed) => tracing::info!("the store can be written again"),
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), changes = jobs.len(), "the store cannot be written");
                    self.database = None;
                }
            }
            self.up.store(is_up, Ordering::Relaxed);
            for done in jobs.into_iter().filter_map(|job| job.done) {
                // The check may have passed its deadline meanwhile; then nobody listens, and the change is kept.
                done.send(is_up).ok();
            }
        }
    }

    fn write(&mut self, jobs: &[Job]) -> anyhow::Result<()> {
        let database = match &mut self.database {
            Some(database) => database,
            closed @ None => closed.insert(create(&self.path)?),
        };
        let transaction = database.begin_write()?;
        let mut wall = None;
        for job in jobs {
            if let Change::Claim { wall: at, .. } = &job.change {
                wall = wall.max(Some(*at));
            }
            apply(&transaction, &job.change)?;
        }
        if let Some(wall) = wall {
            self.swept = sweep_claims(&transaction, self.swept, wall)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn apply(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Lease { tenant, ends, length } => {
            let address = tenant.address.to_string();
            let key = (tenant.endpoint.as_str(), address.as_str());
            transaction.open_table(LEASES)?.insert(key, (ends.0, length.as_secs()))?;
        }
        Change::Forget(tenant) => {
            let address = tenant.address.to_string();
            transaction.open_table(LEASES)?.remove((tenant.endpoint.as_str(), address.as_str()))?;
        }
        Change::SweepLeases(wall) => transaction.open_table(LEASES)?.retain(|_, (ends, _)| ends > wall.0)?,
        Change::Learn { endpoint, secret } => {
            transaction.open_table(LEARNED)?.insert(endpoint.as_str(), secret.expose())?;
        }
        Change::Claim { id, ends, length, awaits_outcome, .. } => {
            let state = if *awaits_outcome { PENDING } else { SETTLED };
            let row = (ends.0, length.as_secs(), &id.holder.bytes(), state);
            transaction.open_table(CLAIMS)?.insert(id.key.bytes(), row)?;
        }
        Change::Conclude(id, conclusion) => conclude(transaction, *id, *conclusion)?,
    }
    Ok(())
}

fn conclude(transaction: &WriteTransaction, id: ClaimId, conclusion: Conclusion) -> Result<(), redb::Error> {
    let mut claims = transaction.open_table(CLAIMS)?;
    let Some((ends, length)) = claims.get(id.key.bytes())?.map(|row| (row.value().0, row.value().1)) else {
        return Ok(());
    };
    let holder = id.holder.bytes();
    match conclusion {
        Conclusion::Released => drop(claims.remove(id.key.bytes())?),
        Conclusion::Settled => drop(claims.insert(id.key.bytes(), (ends, length, &holder, SETTLED))?),
        Conclusion::Unknown => drop(claims.insert(id.key.bytes(), (ends, length, &holder, LOST))?),
    }
    Ok(())
}

/// Looks at some claims behind `from` and drops those that are over; says how far it got. A file is swept through once
/// in as many changes as it has claims, divided by [`SWEPT`].
fn sweep_claims(transaction: &WriteTransaction, from: [u8; 16], wall: UnixSeconds) -> Result<[u8; 16], redb::Error> {
    let mut claims = transaction.open_table(CLAIMS)?;
    let mut over = Vec::new();
    let (mut looked, mut last) = (0_usize, from);
    for row in claims.range::<&[u8; 16]>(&from..)?.take(SWEPT) {
        let (key, value) = row?;
        looked = looked.saturating_add(1);
        last = *key.value();
        if value.value().0 <= wall.0 {
            over.push(last);
        }
    }
    for key in over {
        claims.remove(&key)?;
    }
    // At the end it begins again.
    Ok(if looked < SWEPT { [0; 16] } else { last })
}

/// Writes leases as an earlier process would have left them.
#[cfg(test)]
pub(super) fn plant(path: &Path, leases: impl Iterator<Item = (Tenant, UnixSeconds)>) {
    let database = loop {
        match Database::create(path) {
            Ok(database) => break database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let transaction = database.begin_write().unwrap();
    for (tenant, ends) in leases {
        apply(&transaction, &Change::Lease { tenant, ends, length: Duration::from_secs(1000) }).unwrap();
    }
    transaction.commit().unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_does_not_lengthen_anything() {
        let length = Duration::from_secs(600);
        assert_eq!(remaining(UnixSeconds(1000), length, UnixSeconds(900)), Duration::from_secs(100));
        assert_eq!(remaining(UnixSeconds(1000), length, UnixSeconds(2000)), Duration::ZERO);
        assert_eq!(remaining(UnixSeconds(1000), length, UnixSeconds(i64::MIN)), length);
    }

    #[test]
    fn claims_that_are_over_go_from_the_file_little_by_little() {
        let directory = tempfile::tempdir().unwrap();
        let database = create(&directory.path().join("state.redb")).unwrap();
        read(&database).unwrap();
        let transaction = database.begin_write().unwrap();
        for n in 0..1000_u128 {
            let id = ClaimId { key: ReplayKey::from_bytes(n.to_be_bytes()), holder: Holder::NOBODY };
            let ends = UnixSeconds(if n % 2 == 0 { 10 } else { 1000 });
            let (length, wall) = (Duration::from_secs(1000), UnixSeconds(0));
            apply(&transaction, &Change::Claim { id, ends, length, awaits_outcome: false, wall }).unwrap();
        }
        let mut from = [0; 16];
        for _ in 0..20 {
            from = sweep_claims(&transaction, from, UnixSeconds(10)).unwrap();
        }
        transaction.commit().unwrap();
        assert_eq!(read(&database).unwrap().claims.len(), 500);
    }
}
