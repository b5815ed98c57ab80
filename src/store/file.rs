//! Leases on disk, in a redb file.
//!
//! One thread owns the database: a commit waits for the disk, and the thread that serves checks must not. A grant
//! waits for its commit; forgetting does not, because a lease that is over stays over when it is read back.

use crate::{
    clock::{Now, UnixSeconds},
    decision::Fault,
    scheme::ip_lease::{Grant, Tenant},
    secret::Secret,
};
use anyhow::{Context as _, bail};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::{path::Path, sync::mpsc, thread, time::Duration};
use tokio::sync::oneshot;

/// `(endpoint, address)` → `(wall clock end, whole length)`, both in seconds.
const LEASES: TableDefinition<'_, (&str, &str), (i64, u64)> = TableDefinition::new("leases");
/// What this file is, so that a later release can migrate it and an older one refuses it.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 2;
/// `endpoint` → the secret it learned.
const LEARNED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("learned");
/// Grants waiting for the disk. Beyond it the disk has failed us, and saying so beats queueing.
const QUEUE: usize = 256;

/// A handle on the thread that owns the database.
#[derive(Debug)]
pub(super) struct File {
    jobs: mpsc::SyncSender<Job>,
}

/// A lease as it was read.
pub(super) struct Kept {
    pub(super) tenant: Tenant,
    ends: UnixSeconds,
    length: Duration,
}

enum Job {
    Keep { tenant: Tenant, ends: UnixSeconds, length: Duration, done: oneshot::Sender<bool> },
    Forget(Tenant),
    Sweep(UnixSeconds),
    Remember { endpoint: String, secret: Secret, done: oneshot::Sender<bool> },
}

/// A secret as it was read, and the endpoint that learned it.
type Learned = (String, Secret);

impl Kept {
    /// What is left of it, by the wall clock, and never more than its whole length: a clock set back must not make
    /// a lease longer than it was.
    pub(super) fn remaining(&self, wall: UnixSeconds) -> Duration {
        let left = u64::try_from(self.ends.0.saturating_sub(wall.0)).unwrap_or(0);
        Duration::from_secs(left).min(self.length)
    }
}

impl File {
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Vec<Kept>, Vec<Learned>)> {
        let database = Database::create(path)?;
        // It may hold secrets, which are nobody else's business.
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let (kept, learned) = read(&database)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                for job in queue {
                    run(&database, job);
                }
            })
            .context("cannot start the store's thread")?;
        Ok((Self { jobs }, kept, learned))
    }

    /// Writes a lease; returns when it is on disk.
    pub(super) async fn keep(&self, grant: &Grant, now: Now) -> Result<(), Fault> {
        let (done, written) = oneshot::channel();
        let job = Job::Keep { tenant: grant.tenant.clone(), ends: now.wall.plus(grant.ttl), length: grant.ttl, done };
        self.jobs.try_send(job).map_err(|_| Fault::StoreUnavailable)?;
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::StoreUnavailable),
        }
    }

    /// Writes a secret that an endpoint learned; returns when it is on disk.
    pub(super) async fn remember(&self, endpoint: &str, secret: &[u8]) -> Result<(), Fault> {
        let (done, written) = oneshot::channel();
        let job = Job::Remember { endpoint: endpoint.to_owned(), secret: Secret::new(secret.to_vec()), done };
        self.jobs.try_send(job).map_err(|_| Fault::StoreUnavailable)?;
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::StoreUnavailable),
        }
    }

    /// Removes a lease that is over, some time.
    pub(super) fn forget(&self, tenant: Tenant) {
        if self.jobs.try_send(Job::Forget(tenant)).is_err() {
            tracing::debug!("the store is busy; a lease that is over stays in the file");
        }
    }

    /// Removes all leases that were over at `wall`, some time.
    pub(super) fn sweep(&self, wall: UnixSeconds) {
        if self.jobs.try_send(Job::Sweep(wall)).is_err() {
            tracing::debug!("the store is busy; leases that are over stay in the file");
        }
    }
}

/// Reads everything and brings the file to the current format.
fn read(database: &Database) -> anyhow::Result<(Vec<Kept>, Vec<Learned>)> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|format| format.value());
        match format {
            // Format 1 had no table of learned secrets; it is made below.
            None | Some(1) => drop(meta.insert("format", FORMAT)?),
            Some(FORMAT) => {}
            Some(other) => bail!("its format is {other}, and this release reads {FORMAT}"),
        }
        transaction.open_table(LEASES)?;
        transaction.open_table(LEARNED)?;
    }
    transaction.commit()?;

    let mut kept = Vec::new();
    for row in database.begin_read()?.open_table(LEASES)?.iter()? {
        let (key, value) = row?;
        let ((endpoint, address), (ends, length)) = (key.value(), value.value());
        let address = address.parse().with_context(|| "a lease's address cannot be read")?;
        let tenant = Tenant { endpoint: endpoint.to_owned(), address };
        kept.push(Kept { tenant, ends: UnixSeconds(ends), length: Duration::from_secs(length) });
    }
    let mut learned = Vec::new();
    for row in database.begin_read()?.open_table(LEARNED)?.iter()? {
        let (endpoint, secret) = row?;
        learned.push((endpoint.value().to_owned(), Secret::new(secret.value().to_vec())));
    }
    Ok((kept, learned))
}

fn run(database: &Database, job: Job) {
    match job {
        Job::Keep { tenant, ends, length, done } => {
            let written = write(database, |leases| {
                let address = tenant.address.to_string();
                leases.insert((tenant.endpoint.as_str(), address.as_str()), (ends.0, length.as_secs())).map(drop)
            });
            if let Err(error) = &written {
                tracing::error!(%error, "cannot write a lease");
            }
            // The check may have passed its deadline meanwhile; then nobody listens, and the lease is kept.
            done.send(written.is_ok()).ok();
        }
        Job::Remember { endpoint, secret, done } => {
            let written = remember(database, &endpoint, secret.expose());
            if let Err(error) = &written {
                tracing::error!(%error, endpoint, "cannot write a secret that was learned");
            }
            done.send(written.is_ok()).ok();
        }
        Job::Sweep(wall) => {
            if let Err(error) = write(database, |leases| leases.retain(|_, (ends, _)| ends > wall.0)) {
                tracing::warn!(%error, "cannot remove leases that are over");
            }
        }
        Job::Forget(tenant) => {
            let address = tenant.address.to_string();
            if let Err(error) =
                write(database, |leases| leases.remove((tenant.endpoint.as_str(), address.as_str())).map(drop))
            {
                tracing::warn!(%error, "cannot remove a lease that is over");
            }
        }
    }
}

fn remember(database: &Database, endpoint: &str, secret: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LEARNED)?.insert(endpoint, secret)?;
    transaction.commit()?;
    Ok(())
}

type LeaseTable<'t> = redb::Table<'t, (&'static str, &'static str), (i64, u64)>;

fn write(
    database: &Database,
    change: impl FnOnce(&mut LeaseTable<'_>) -> Result<(), redb::StorageError>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    change(&mut transaction.open_table(LEASES)?)?;
    transaction.commit()?;
    Ok(())
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
    write(&database, |table| {
        for (tenant, ends) in leases {
            table.insert((tenant.endpoint.as_str(), tenant.address.to_string().as_str()), (ends.0, 1000))?;
        }
        Ok(())
    })
    .unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_does_not_lengthen_a_lease() {
        let tenant = Tenant { endpoint: "e".into(), address: [203, 0, 113, 7].into() };
        let kept = Kept { tenant, ends: UnixSeconds(1000), length: Duration::from_secs(600) };
        assert_eq!(kept.remaining(UnixSeconds(900)), Duration::from_secs(100));
        assert_eq!(kept.remaining(UnixSeconds(2000)), Duration::ZERO);
        assert_eq!(kept.remaining(UnixSeconds(i64::MIN)), Duration::from_secs(600));
    }
}
