//! Fetches published keys, in the background and from the configured host only.
//!
//! One thread, one fetch at a time: nobody waits for it. The URL is the configured base and an id that has the
//! configured shape; `https`, no redirects, a bounded time and size, and no address that is not public, judged after
//! resolution and on the very address that is connected to (CVE-2026-32096 and its kin).

use crate::{
    clock::{Clock, UnixSeconds},
    json::Json,
    scheme::{
        algorithm::Algorithm,
        ip_lease::is_public,
        public_key::{KeyFormat, KeyPolicy, PublicKey},
        remote_keys::RemoteKeys,
    },
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
    /// The address: `https://host`, perhaps with a port, behind which an id is put; nothing, where ids are whole
    /// addresses; or the whole address of a set.
    pub base: String,
    /// What is there.
    pub document: Document,
    /// What its keys are for.
    pub algorithms: Vec<Algorithm>,
    /// Certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Lets the host resolve to a private address.
    pub allow_private_addresses: bool,
}

/// What an address answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Document {
    /// One key.
    Key(KeyFormat),
    /// A JSON Web Key Set (RFC 7517 §5).
    Set,
}

/// What was fetched.
enum Fetched {
    Key(Key<PublicKey>),
    Set(Vec<(String, Key<PublicKey>)>),
    Absent,
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
            Ok(Fetched::Key(key)) => {
                tracing::info!(origin = self.origin.base, key_id = self.id, "a key was fetched");
                keys.put(&self.id, Some(key), clock.now());
            }
            Ok(Fetched::Set(set)) => {
                tracing::info!(origin = self.origin.base, keys = set.len(), "a set of keys was fetched");
                keys.put_set(set, &self.id, clock.now());
            }
            Ok(Fetched::Absent) => {
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
    /// Fetches what is under an id.
    fn fetch(&self, id: &str, now: UnixSeconds) -> anyhow::Result<Fetched> {
        let address = match self.document {
            Document::Key(_) => format!("{}{id}", self.base),
            Document::Set => self.base.clone(),
        };
        let mut response = self.agent()?.get(address).call()?;
        match response.status().as_u16() {
            200 => {}
            404 | 410 if self.document != Document::Set => return Ok(Fetched::Absent),
            status => bail!("the host answered {status}"),
        }
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string()?;
        self.read(&text, id, now)
    }

    fn read(&self, text: &str, id: &str, now: UnixSeconds) -> anyhow::Result<Fetched> {
        let label = |id: &str| Arc::new(Label { id: id.to_owned(), tags: Vec::new() });
        let policy = KeyPolicy::default();
        match self.document {
            Document::Key(KeyFormat::X509) => {
                let (value, validity) = PublicKey::from_certificate(text, now, &self.algorithms, policy)
                    .map_err(|problem| anyhow!("it {problem}"))?;
                let (from, until) = (Some(validity.from), Some(validity.until));
                Ok(Fetched::Key(Key { label: label(id), from, until, value }))
            }
            Document::Key(format) => {
                let value = PublicKey::read(text, format, &self.algorithms, policy)
                    .map_err(|problem| anyhow!("it {problem}"))?;
                Ok(Fetched::Key(Key { label: label(id), from: None, until: None, value }))
            }
            Document::Set => {
                let json = Json::parse(text.as_bytes()).ok_or_else(|| anyhow!("it is not JSON"))?;
                let Some(Json::Array(keys)) = json.at("/keys") else { bail!("it has no keys") };
                // A set may hold keys of other kinds, for others.
                let usable = keys.iter().filter_map(|jwk| {
                    let id = jwk.text_at("/kid")?;
                    let value = PublicKey::from_jwk(jwk, &self.algorithms, policy).ok()?;
                    Some((id.to_owned(), Key { label: label(id), from: None, until: None, value }))
                });
                let usable: Vec<(String, Key<PublicKey>)> = usable.collect();
                let ids: std::collections::HashSet<&str> = usable.iter().map(|(id, _)| id.as_str()).collect();
                if ids.len() < usable.len() {
                    bail!("it has two keys with one id");
                }
                Ok(Fetched::Set(usable))
            }
        }
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
