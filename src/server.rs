//! Listeners, reload and shutdown.
//!
//! One current-thread runtime does all I/O unless the configuration wants more of them (`threads`). Only large bodies,
//! dear signatures when they come thick, and the disk leave it.
//!
//! Start: the configuration is valid or there is no process. Reload: parse, compile, swap; any problem keeps what is
//! in force. Shutdown: readiness goes first, then the listener, and checks in flight finish, within a bound.

mod admin;
mod incoming;
mod reload;
mod threads;
mod watcher;

pub use threads::runtime;

use crate::{
    clock::Clock,
    config::{self, Compiled, Context, Loaded, Problem, compile::Kept, process::Address},
    ext_authz::{ExtAuthz, GrpcService, SERVICE},
    gate::{Gate, budget::Budget, examiners::Examiners},
    http_verify::HttpVerify,
    replay::Digests,
    secret::Secret,
    store::Store,
    telemetry::Telemetry,
    traces::{Traces, TracesConfig},
};
use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use reload::Reloaded;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tonic_health::ServingStatus;

/// How long checks in flight may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(9);
/// How long a shared store is waited for before checks are.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// Connections that the `ext_authz` listener serves at once, on all threads together. A proxy opens one for each of its
/// workers, and another for a thousand checks under way; without a bound, whoever can connect could take every descriptor.
const EXT_AUTHZ_CONNECTIONS: usize = 1024;
/// Connections that the HTTP listener serves at once, on all threads together: one for each check under way, and those that
/// proxies keep open.
const VERIFY_CONNECTIONS: usize = 4096;

/// A process that is about to serve.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    kept: Arc<Kept>,
    announced: Mutex<BTreeSet<String>>,
    gate: Arc<Gate>,
    /// The same through all reloads: what was claimed before must be known after.
    digests: Digests,
    listen: config::process::Listen,
    /// What is watched, where it is.
    files: Mutex<BTreeSet<PathBuf>>,
    watches: bool,
    started_with: StartedWith,
    reload_token: Arc<ArcSwapOption<Secret>>,
    ready: Arc<AtomicBool>,
}

/// What only a restart changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StartedWith {
    listen: config::process::Listen,
    limits: config::process::Limits,
    store: crate::store::StoreKind,
    traces: Option<TracesConfig>,
}

impl StartedWith {
    fn of(compiled: &Compiled) -> Self {
        let Compiled { listen, limits, store, traces, .. } = compiled;
        Self { listen: listen.clone(), limits: *limits, store: store.clone(), traces: traces.clone() }
    }
}

impl Server {
    /// Opens the store and prepares everything that a valid configuration asks for.
    pub fn prepare(path: &Path, loaded: Loaded, kept: Arc<Kept>, clock: Clock) -> anyhow::Result<Self> {
        let Loaded { compiled, warnings, mut files } = loaded;
        files.insert(path.to_owned());
        warn(path, &warnings);
        let telemetry = Telemetry::new().context("cannot make the metrics")?;
        telemetry.configured(&compiled.endpoints, clock.now());
        let store = Store::open(&compiled.store, clock.now())?;
        let digests = store.digests()?;
        let gate = Gate {
            store,
            clock,
            telemetry,
            traces: Traces::start(compiled.traces.as_ref())?,
            limits: compiled.limits,
            budget: Budget::new(compiled.limits.bodies_in_flight),
            examiners: Examiners::per_core().context("cannot start a thread for large bodies")?,
            endpoints: ArcSwap::from_pointee(crate::endpoint::Endpoints::default()),
        };
        kept.restore(gate.store.take_learned());
        let started_with = StartedWith::of(&compiled);
        gate.endpoints.store(Arc::new(compiled.endpoints.digested_by(digests.clone())));
        Ok(Self {
            path: path.to_owned(),
            kept,
            announced: Mutex::default(),
            gate: Arc::new(gate),
            digests,
            listen: compiled.listen,
            files: Mutex::new(files),
            watches: compiled.watch,
            started_with,
            reload_token: Arc::new(ArcSwapOption::from_pointee(compiled.reload_token)),
            ready: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Serves until SIGTERM or SIGINT.
    pub async fn run(self) -> anyhow::Result<()> {
        self.announce_tokens();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (stop, stopped) = watch::channel(false);

        let (ask, mut callers) = reload::callers();
        let admin = match self.listen.admin {
            Some(address) => Some(admin::bind(address, self.admin(ask)).await?),
            None => None,
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        health.set_service_status(SERVICE, ServingStatus::Serving).await;
        let (gate, kept) = (Arc::clone(&self.gate), Arc::clone(&self.kept));
        let attending = tokio::spawn(async move {
            gate.store.attend(gate.clock, |secrets| kept.restore(secrets)).await;
        });
        // The first check finds the store connected; one that cannot be reached holds nothing up.
        if tokio::time::timeout(FIRST_CONTACT, self.gate.store.tried()).await.is_err() {
            tracing::warn!("the store did not answer yet");
        }
        keep_room_for_bodies();
        let (verify_address, mut verifying) = self.listen_for_http(stopped.clone()).await?;
        let (address, mut serving) = self.listen(health_service, stopped).await?;
        self.ready.store(true, Ordering::Release);
        let admin_address = admin.as_ref().map(ToString::to_string);
        tracing::info!(
            ext_authz = address,
            verify = verify_address,
            admin = admin_address,
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );

        let mut watch = if self.watches {
            Some(watcher::Watch::start(self.watched()).context("cannot watch the configuration")?)
        } else {
            None
        };
        // A file that does not answer holds up its own reload and nothing else.
        let (mut reload, mut wanted) = (None, false);
        loop {
            if wanted && reload.is_none() {
                wanted = false;
                callers.begin();
                reload = Some(Box::pin(self.reload()));
            }
            let idle = reload.is_none();
            let reloaded = async {
                match reload.as_mut() {
                    Some(reload) => reload.await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                match watch.as_mut() {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut serving => {
                    ended.context("the ext_authz listener failed")?;
                    anyhow::bail!("the ext_authz listener ended");
                }
                ended = &mut verifying => {
                    ended.context("the verify listener failed")?;
                    anyhow::bail!("the verify listener ended");
                }
                outcome = reloaded => {
                    reload = None;
                    callers.end(outcome);
                    if let Some(watch) = &watch {
                        watch.these(self.watched());
                    }
                }
                () = changed => wanted = true,
                () = callers.asked(), if idle => wanted = true,
                _ = hangup.recv() => wanted = true,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }

        tracing::info!("draining");
        drop(callers);
        self.ready.store(false, Ordering::Release);
        health.set_service_status("", ServingStatus::NotServing).await;
        health.set_service_status(SERVICE, ServingStatus::NotServing).await;
        stop.send_replace(true);
        let both = async { tokio::join!(serving, verifying) };
        if let Ok((served, verified)) = tokio::time::timeout(DRAIN, both).await {
            served.context("the ext_authz listener failed")?;
            verified.context("the verify listener failed")?;
        } else {
            tracing::warn!("checks were still in flight after {} s", DRAIN.as_secs());
        }
        attending.abort();
        let gate = Arc::clone(&self.gate);
        tokio::task::spawn_blocking(move || gate.traces.finish()).await.ok();
        tracing::info!("stopped");
        Ok(())
    }

    fn admin(&self, ask: reload::Ask) -> admin::Admin {
        admin::Admin {
            gate: Arc::clone(&self.gate),
            ready: Arc::clone(&self.ready),
            reload_token: Arc::clone(&self.reload_token),
            ask,
        }
    }

    /// Binds the `ext_authz` listener, and serves it in the background until it is told to stop.
    async fn listen(
        &self,
        health: impl GrpcService,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<(String, tokio::task::JoinHandle<()>)> {
        let bound = incoming::bind(&self.listen.ext_authz, self.listen.socket_mode, EXT_AUTHZ_CONNECTIONS).await?;
        let address = bound.address();
        let service = ExtAuthz::new(&self.gate, stopped.clone(), health);
        let serving = tokio::spawn(threads::serve(bound, self.listen.threads, stopped, service));
        Ok((address, serving))
    }

    /// Binds the HTTP listener, where there is one, and serves it in the background until it is told to stop.
    async fn listen_for_http(
        &self,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<(Option<String>, tokio::task::JoinHandle<()>)> {
        let Some(listener) = &self.listen.verify else {
            return Ok((None, tokio::spawn(threads::told_to(stopped))));
        };
        let bound = incoming::bind(&listener.address, self.listen.socket_mode, VERIFY_CONNECTIONS).await?;
        let address = bound.address();
        let service = HttpVerify::new(Arc::clone(&self.gate), listener.rules.clone());
        let serving = tokio::spawn(threads::serve(bound, self.listen.threads, stopped, service));
        Ok((Some(address), serving))
    }

    /// Loads the configuration again, and puts it in force if nothing is wrong with it.
    async fn reload(&self) -> Reloaded {
        let (path, kept, clock) = (self.path.clone(), Arc::clone(&self.kept), self.gate.clock);
        // Files are read and keys parsed elsewhere; checks go on meanwhile.
        let loading = tokio::task::spawn_blocking(move || config::load(&path, &Context { now: clock.now(), kept }));
        let Ok(loaded) = loading.await else {
            self.gate.telemetry.reloaded(false);
            tracing::error!("the reload failed; the configuration in force stays");
            return Reloaded::Failed;
        };
        match loaded {
            Ok(Loaded { compiled, warnings, files }) => {
                self.watch(files);
                warn(&self.path, &warnings);
                self.announce_tokens();
                if StartedWith::of(&compiled) != self.started_with {
                    tracing::warn!("`listen`, `limits`, `store` and `traces` take effect at the next start");
                }
                self.gate.telemetry.configured(&compiled.endpoints, clock.now());
                self.gate.endpoints.store(Arc::new(compiled.endpoints.digested_by(self.digests.clone())));
                self.reload_token.store(compiled.reload_token.map(Arc::new));
                self.gate.telemetry.reloaded(true);
                tracing::info!("the configuration was reloaded");
                Reloaded::Applied
            }
            Err(problems) => {
                self.watch(problems.files.clone());
                self.gate.telemetry.reloaded(false);
                let lines: Vec<String> = problems.problems.iter().map(|p| p.line(&problems.file)).collect();
                for problem in &lines {
                    tracing::error!(problem, "the configuration was not reloaded; the one in force stays");
                }
                Reloaded::Refused(lines)
            }
        }
    }

    /// Notes which files the configuration names now, beside itself.
    fn watch(&self, mut files: BTreeSet<PathBuf>) {
        files.insert(self.path.clone());
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    fn watched(&self) -> BTreeSet<PathBuf> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Prints every token made by this process, once, on standard error and not as a log line, whose fields are kept and
    /// searched. Where standard error is kept too, a configured secret is the better choice; README says so.
    fn announce_tokens(&self) {
        use std::io::Write as _;
        let generated = self.kept.generated.lock().unwrap_or_else(PoisonError::into_inner);
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        for (endpoint, token) in generated.iter().filter(|(endpoint, _)| !announced.contains(*endpoint)) {
            let line =
                format!("endpoint `{endpoint}` has no secret; its verify token until the next start is {token}\n");
            if std::io::stderr().write_all(line.as_bytes()).is_err() {
                tracing::warn!(endpoint, "a verify token was made but cannot be printed");
            }
        }
        announced.extend(generated.keys().cloned());
    }
}

/// Says what should be looked at.
fn warn(path: &Path, warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!(place = warning.line(&path.display().to_string()), "look at this");
    }
}

/// Has glibc's allocator keep what bodies were in for the next ones. When 128 KiB are free at the end of its memory it gives them
/// back, and the system clears pages for the next body: a fifth of what checks of 256 KiB cost. What it learns from is the
/// longest piece that was mapped for itself and freed (`M_MMAP_THRESHOLD` in mallopt(3)): shorter ones are not mapped any
/// more, and nothing is given back until twice that is free. So up to six megabytes stay free at the end of each arena, of which
/// a thread has one, enough for some twenty bodies of 256 KiB; longer bodies teach it more, as they always did. With another
/// allocator it is twelve megabytes of address space for a moment.
///
/// It comes after a start, which leaves much behind that is not needed again. Pieces for which there is room in that are not
/// mapped and teach nothing: hence four, all held at once.
fn keep_room_for_bodies() {
    drop(std::hint::black_box([(); 4].map(|()| Vec::<u8>::with_capacity(3 << 20))));
}

/// How a listener is told in the log.
fn display(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}
