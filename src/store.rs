//! Where state lives: memory, or memory with a file behind it.
//!
//! Lookups never leave memory. The file only makes a grant outlive the process, and a grant is on disk before the
//! client is told of it. Expiry follows the monotonic clock; the wall clock is read once, when a file is opened, to
//! learn how much of each lease is left.

mod file;
mod memory;

pub use memory::MAX_LEASES;

use crate::{
    admission::{Standing, State},
    clock::Now,
    decision::Fault,
    scheme::ip_lease::{Grant, Tenant},
    secret::Secret,
};
use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Which store, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Forgotten when the process ends.
    Memory,
    /// Kept in an embedded database file.
    File(PathBuf),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    leases: memory::Leases,
    file: Option<file::File>,
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
        }
    }

    /// A store that is forgotten with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { leases: memory::Leases::default(), file: None, learned: Mutex::default() }
    }

    fn on_file(path: &Path, now: Now) -> anyhow::Result<Self> {
        let (file, kept, learned) = file::File::open(path)?;
        let leases = memory::Leases::default();
        for lease in kept {
            let remaining = lease.remaining(now.wall);
            leases.restore(lease.tenant, remaining, now);
        }
        Ok(Self { leases, file: Some(file), learned: Mutex::new(learned) })
    }

    /// The secrets that endpoints learned before, once.
    #[must_use]
    pub fn take_learned(&self) -> Vec<(String, Secret)> {
        std::mem::take(&mut *self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many leases are held or not yet reported as over.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.leases.count()
    }
}

impl State for Store {
    async fn standing(&self, tenant: &Tenant, now: Now) -> Result<Standing, Fault> {
        let standing = self.leases.standing(tenant, now);
        if let (Standing::Over, Some(file)) = (standing, &self.file) {
            file.forget(tenant.clone());
        }
        Ok(standing)
    }

    async fn remember(&self, endpoint: &str, secret: &[u8]) -> Result<(), Fault> {
        match &self.file {
            Some(file) => file.remember(endpoint, secret).await,
            // A secret that is only in memory is lost with the process; `check` says so beforehand.
            None => Ok(()),
        }
    }

    async fn grant(&self, grant: &Grant, now: Now) -> Result<(), Fault> {
        self.leases.make_room(&grant.tenant, now)?;
        if let Some(file) = &self.file {
            file.keep(grant, now).await?;
        }
        self.leases.grant(grant, now)
    }
}
