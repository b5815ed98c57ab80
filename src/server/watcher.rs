//! Notices that the configuration, or a file that it names, is another one.
//!
//! The kernel tells of changes in the directories the files are in, so that a file that is replaced by a rename, and a
//! whole directory that is swapped behind a symbolic link, as Kubernetes does with a Secret, are both seen. It does not
//! tell of everything: not on every file system, and not across a mount that is replaced. So the files are looked at
//! now and then all the same. What counts is whether a file *is* another one than before, never how it came to be.

use notify::Watcher as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How often files are looked at without a word from the kernel.
const POLL: Duration = Duration::from_secs(2);
/// A writer is believed to be done when nothing has changed for so long, and is not waited for longer than [`POLL`].
const QUIET: Duration = Duration::from_millis(50);

/// What a file is; nothing if it is not there. Links are followed.
type Identity = Option<(u64, u64, u64, i64, i64)>;

/// A thread that watches.
#[derive(Debug)]
pub(super) struct Watch {
    files: Arc<Mutex<BTreeSet<PathBuf>>>,
    changed: tokio::sync::mpsc::Receiver<()>,
}

impl Watch {
    /// Watches `files` from now on.
    pub(super) fn start(files: BTreeSet<PathBuf>) -> io::Result<Self> {
        let (tell, changed) = tokio::sync::mpsc::channel(1);
        let seen = identities(&files);
        let files = Arc::new(Mutex::new(files));
        let watched = Arc::clone(&files);
        thread::Builder::new().name("watch".to_owned()).spawn(move || run(&watched, seen, &tell))?;
        Ok(Self { files, changed })
    }

    /// Watches these files instead.
    pub(super) fn these(&self, files: BTreeSet<PathBuf>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Comes back when something is another file than before.
    pub(super) async fn changed(&mut self) {
        if self.changed.recv().await.is_none() {
            // The thread is gone; a signal still reloads.
            std::future::pending::<()>().await;
        }
    }
}

fn run(files: &Mutex<BTreeSet<PathBuf>>, mut seen: BTreeMap<PathBuf, Identity>, tell: &tokio::sync::mpsc::Sender<()>) {
    let (event, events) = mpsc::channel();
    let of_kernel = notify::recommended_watcher(move |_| {
        // Nobody listens when the thread ends.
        event.send(()).ok();
    });
    let mut watcher = match of_kernel {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the kernel tells of no changes; files are looked at every {} s", POLL.as_secs());
            None
        }
    };
    let mut directories = BTreeSet::new();
    loop {
        let now = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = &mut watcher {
            follow(watcher, &mut directories, &now);
        }
        if events.recv_timeout(POLL).is_ok() {
            let mut waited = Duration::ZERO;
            while waited < POLL && events.recv_timeout(QUIET).is_ok() {
                waited = waited.saturating_add(QUIET);
            }
        } else if watcher.is_none() {
            thread::sleep(POLL);
        }
        let found = identities(&now);
        // A file that is watched for the first time was read a moment ago, and is no change.
        let changed = found.iter().any(|(path, identity)| seen.get(path).is_some_and(|before| before != identity));
        seen = found;
        if changed && matches!(tell.try_send(()), Err(tokio::sync::mpsc::error::TrySendError::Closed(()))) {
            return;
        }
    }
}

/// Watches the directories of all files, and no others.
fn follow(watcher: &mut notify::RecommendedWatcher, directories: &mut BTreeSet<PathBuf>, files: &BTreeSet<PathBuf>) {
    let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| directory(file)).collect();
    for gone in directories.difference(&wanted) {
        // It may be gone from the disk too.
        watcher.unwatch(gone).ok();
    }
    let new: Vec<_> = wanted.difference(directories).cloned().collect();
    directories.retain(|directory| wanted.contains(directory));
    for directory in new {
        // One that is not there yet is tried again the next time round.
        if watcher.watch(&directory, notify::RecursiveMode::NonRecursive).is_ok() {
            directories.insert(directory);
        }
    }
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

fn identities(files: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Identity> {
    let identity = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        let changed = metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
        let written = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Some((metadata.dev(), metadata.ino(), metadata.len(), written, changed))
    };
    files.iter().map(|file| (file.clone(), identity(file))).collect()
}
