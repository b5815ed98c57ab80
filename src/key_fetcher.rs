//! Fetches published keys, in the background and from the configured host only.
//!
//! One thread, one fetch at a time: nobody waits for it. The URL is the configured base and an id that has the
//! configured shape; `https`, no redirects, a bounded time and size, and no address that is not public, judged after
//! resolution and on the very address that is connected to (CVE-2026-32096 and its kin).

use crate::{
    clock::{Clock, UnixSeconds},
    scheme::{ip_lease::is_public, public_key::RsaKey, remote_keys::RemoteKeys},
    secret::{Key, Label},
};
use anyhow::{Context as _, anyhow, bail};
use std::{
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    thread,
    time::Duration,
};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};

/// Longest fetch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// Fetches that may wait. What does not fit is asked for again by a later delivery.
const QUEUE: usize = 16;

/// Where the keys of one source are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https://host`, perhaps with a port, and nothing behind it.
    pub base: String,
    /// Certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Lets the host resolve to a private address.
    pub allow_private_addresses: bool,
}

/// A handle on the thread that fetches.
#[derive(Debug, Clone)]
pub struct KeyFetcher(mpsc::SyncSender<Job>);

#[derive(Debug)]
struct Job {
    origin: Arc<Origin>,
    keys: Weak<RemoteKeys>,
    id: String,
}

impl KeyFetcher {
    /// Starts the thread. It ends with the last handle.
    pub fn start(clock: Clock) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job.run(clock)))
            .context("cannot start the thread that fetches keys")?;
        Ok(Self(jobs))
    }

    /// Asks for a key of `origin`.
    #[must_use]
    pub fn ask(&self, origin: &Arc<Origin>, keys: &Arc<RemoteKeys>, id: &str) -> bool {
        let job = Job { origin: Arc::clone(origin), keys: Arc::downgrade(keys), id: id.to_owned() };
        self.0.try_send(job).is_ok()
    }
}

impl Job {
    fn run(&self, clock: Clock) {
        // A reload may have dropped the source meanwhile.
        let Some(keys) = self.keys.upgrade() else { return };
        match self.origin.fetch(&self.id, clock.now().wall) {
            Ok(Some(key)) => {
                tracing::info!(origin = self.origin.base, key_id = self.id, "a key was fetched");
                keys.put(&self.id, Some(key), clock.now());
            }
            Ok(None) => {
                tracing::warn!(origin = self.origin.base, key_id = self.id, "the provider has no such key");
                keys.put(&self.id, None, clock.now());
            }
            // Nothing is put: the key that may be here goes on, and the id is asked for again after the window.
            Err(error) => {
                tracing::warn!(
                    origin = self.origin.base,
                    key_id = self.id,
                    error = format!("{error:#}"),
                    "a key could not be fetched"
                );
            }
        }
    }
}

impl Origin {
    /// Fetches the certificate under an id; nothing if the host says that there is none.
    fn fetch(&self, id: &str, now: UnixSeconds) -> anyhow::Result<Option<Key<RsaKey>>> {
        let mut response = self.agent()?.get(format!("{}{id}", self.base)).call()?;
        match response.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            status => bail!("the host answered {status}"),
        }
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
        let (value, validity) =
            RsaKey::from_certificate(&text, now, false).map_err(|problem| anyhow!("it {problem}"))?;
        let label = Arc::new(Label { id: id.to_owned(), tags: Vec::new() });
        Ok(Some(Key { label, from: Some(validity.from), until: Some(validity.until), value }))
    }

    fn agent(&self) -> anyhow::Result<ureq::Agent> {
        let config = ureq::Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("hookwarden/", env!("CARGO_PKG_VERSION")))
            .tls_config(crate::tls::client(self.ca_file.as_deref())?)
            .build();
        let resolver = PublicOnly { allow_private_addresses: self.allow_private_addresses };
        Ok(ureq::Agent::with_parts(config, ureq::unversioned::transport::DefaultConnector::default(), resolver))
    }
}

/// Resolves names, and forgets every address that is not public. What is left is what is connected to.
#[derive(Debug)]
struct PublicOnly {
    allow_private_addresses: bool,
}

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &http::Uri,
        config: &ureq::config::Config,
        timeout: ureq::unversioned::transport::NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut public = self.empty();
        for address in &DefaultResolver::default().resolve(uri, config, timeout)? {
            if self.allow_private_addresses || is_public(address.ip().to_canonical()) {
                public.push(*address);
            }
        }
        if public.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(public) }
    }
}
