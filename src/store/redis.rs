//! State in a Redis or Valkey that replicas share.
//!
//! A claim is one script, and so one atomic round trip with a deadline. What does not answer in time, or not at all,
//! opens the breaker: nobody asks any more until the task behind [`Redis::attend`] has been answered again, and who
//! would have asked is told at once. No queue grows meanwhile but the bounded one of what is owed: outcomes that could
//! not be told, and claims that were made although nobody waited for the answer.
//!
//! A server can forget: it is emptied, it restarts, another is promoted that had not heard of the latest claims. So it
//! is asked, with every claim, which run of it this is and since when it forgot nothing (`since.lua`). A delivery that
//! was signed before that moment may have been claimed and forgotten; one that was signed after cannot have been. Where
//! replays are refused, the first kind is too, so that nothing a server forgets lets a replay through, and new
//! deliveries pass again as soon as the server is back.
//!
//! All keys lie in one slot of a cluster, because that moment and the claims must be read together.

mod connect;

pub use connect::{Credentials, RedisConfig, Servers};

use crate::{
    admission::Standing,
    clock::{Clock, Now},
    decision::Fault,
    replay::{Claim, ClaimId, Claimed, Conclusion, OnDuplicate, StoreFailure},
    scheme::ip_lease::{Grant, Tenant},
    secret::Secret,
};
use arc_swap::ArcSwapOption;
use connect::{Connector, Link};
use redis::{ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation};
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::timeout,
};

/// How far the clocks of the machines, and of providers, are believed to agree.
const SKEW: Duration = Duration::from_secs(2);
/// So many answers in a row may be late before nobody asks any more.
const LATE: u32 = 3;
/// How often a server that answers is looked at, and how often one that does not is tried.
const BEAT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
/// Longest time that connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// What is owed to the server. Beyond it claims end by themselves.
const OWED: usize = 4096;

/// By how much a server's clock may gain on ours between two looks before it is said to have jumped.
const DRIFT: Duration = Duration::from_secs(2);

const FIRST: i64 = 0;
const AGAIN: i64 = 1;
const PENDING: i64 = 2;
const UNKNOWN: i64 = 3;
const SETTLED: i64 = 4;
const FORGOTTEN: i64 = 5;

/// A script, behind what every script begins with.
macro_rules! script {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("redis/since.lua"), include_str!($file))));
    };
}

script!(CLAIM, "redis/claim.lua");
script!(CONCLUDE, "redis/conclude.lua");
script!(BEAT_SCRIPT, "redis/beat.lua");
script!(STANDING, "redis/standing.lua");
script!(GRANT, "redis/grant.lua");
script!(LEARN, "redis/learn.lua");

/// What is to be told to the server about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// What became of it.
    Concluded(Conclusion),
    /// Nobody was told that it was made, so nobody holds it.
    Withdrawn,
}

type Debt = (ClaimId, Word);

/// A handle on a shared server.
#[derive(Debug)]
pub(super) struct Redis {
    connector: Mutex<Connector>,
    keys: Keys,
    deadline: Duration,
    /// Nothing while the breaker is open.
    link: ArcSwapOption<Link>,
    late: AtomicU32,
    opened: Notify,
    owe: mpsc::Sender<Debt>,
    owed: Mutex<mpsc::Receiver<Debt>>,
    /// Whether it was reached at all, once that was tried.
    tried: watch::Sender<bool>,
}

/// Names of keys, all in one slot.
#[derive(Debug)]
struct Keys {
    claim: String,
    since: String,
    leases: String,
    learned: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let name = |kind: &str| format!("{{{prefix}}}:{kind}");
        Self { claim: name("claim:"), since: name("since"), leases: name("leases"), learned: name("learned") }
    }

    fn claim(&self, claim: ClaimId) -> String {
        format!("{}{}", self.claim, const_hex::encode(claim.key.bytes()))
    }
}

impl Redis {
    /// A handle; nothing is connected before [`Redis::attend`] runs.
    pub(super) fn new(config: &RedisConfig) -> anyhow::Result<Self> {
        let (owe, owed) = mpsc::channel(OWED);
        Ok(Self {
            connector: Mutex::new(Connector::new(config)?),
            keys: Keys::new(&config.prefix),
            deadline: config.deadline,
            link: ArcSwapOption::empty(),
            late: AtomicU32::new(0),
            opened: Notify::new(),
            owe,
            owed: Mutex::new(owed),
            tried: watch::Sender::new(false),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.load().is_some()
    }

    /// Comes back when the server was tried for the first time.
    pub(super) async fn tried(&self) {
        // The sender is here, so there is no error.
        self.tried.subscribe().wait_for(|tried| *tried).await.ok();
    }

    /// The connection, unless the breaker is open.
    fn link(&self) -> Result<Arc<Link>, Fault> {
        self.link.load_full().ok_or(Fault::StoreUnavailable)
    }

    /// The answer, if it comes in time.
    async fn answer<T: FromRedisValue>(&self, invocation: ScriptInvocation<'static>) -> Result<T, Fault> {
        let link = self.link()?;
        match timeout(self.deadline, Link::clone(&link).run(invocation)).await {
            Ok(answer) => self.judge(answer, &link),
            Err(_) => Err(self.is_late(&link)),
        }
    }

    /// An answer in time closes the matter; an error that the next call would meet too opens the breaker.
    fn judge<T>(&self, answer: Result<T, RedisError>, link: &Arc<Link>) -> Result<T, Fault> {
        match answer {
            Ok(answer) => {
                self.late.store(0, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) if error.code() == Some("OOM") => Err(Fault::StoreFull),
            Err(error) => {
                self.open(link, &error.to_string());
                Err(Fault::StoreUnavailable)
            }
        }
    }

    fn is_late(&self, link: &Arc<Link>) -> Fault {
        if self.late.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= LATE {
            self.open(link, "no answer in time");
        }
        Fault::StoreUnavailable
    }

    /// Opens the breaker, if this connection is still the one in use: what an older one says is no news.
    fn open(&self, link: &Arc<Link>, why: &str) {
        let mine = Some(Arc::clone(link));
        let before = self.link.compare_and_swap(&mine, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, link)) {
            tracing::error!(why, "the store cannot be reached");
            self.opened.notify_one();
        }
    }

    /// Notes what is to be told to the server when it can be.
    fn owe(&self, claim: ClaimId, word: Word) {
        if self.owe.try_send((claim, word)).is_err() {
            tracing::debug!("too much is owed to the store; a claim ends by itself");
        }
    }

    pub(super) async fn claim(&self, claim: &Claim, now: Now) -> Result<Claimed, Fault> {
        let id = ClaimId { key: claim.key, holder: claim.holder };
        let wall = milliseconds(now);
        // It may have arrived before the moment that it bears, by its signer's clock.
        let signed = claim.signed_at.map(|at| at.0.saturating_mul(1000).saturating_sub(skew()));
        let strict = claim.rule.on_duplicate != OnDuplicate::Mark && claim.rule.store_failure == StoreFailure::Deny;
        let patience = claim.rule.outcome_within.unwrap_or(Duration::ZERO);
        let mut invocation = CLAIM.key(self.keys.claim(id));
        invocation
            .key(&self.keys.since)
            .arg(const_hex::encode(claim.holder.bytes()))
            .arg(whole(claim.rule.remember))
            .arg(whole(patience))
            .arg(wall)
            .arg(signed.map(|signed| signed.to_string()).unwrap_or_default())
            .arg(i64::from(strict));
        let link = self.link()?;
        let mut asked = Box::pin(Link::clone(&link).run::<i64>(invocation));
        let Ok(answer) = timeout(self.deadline, &mut asked).await else {
            // Whatever comes now comes to nobody. Where the delivery is refused meanwhile, a claim that was made all the
            // same would refuse the provider's next try; where it passes, the claim is right.
            let owe = self.owe.clone();
            tokio::spawn(async move {
                if !matches!(asked.await, Ok(AGAIN | PENDING | SETTLED | FORGOTTEN)) && strict {
                    owe.try_send((id, Word::Withdrawn)).ok();
                }
            });
            return Err(self.is_late(&link));
        };
        if strict && answer.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Server(_))) {
            self.owe(id, Word::Withdrawn);
        }
        match self.judge(answer, &link)? {
            FIRST => Ok(Claimed::First),
            AGAIN => Ok(Claimed::Again),
            PENDING => Ok(Claimed::Pending),
            UNKNOWN => Ok(Claimed::Unknown),
            SETTLED => Ok(Claimed::Settled),
            FORGOTTEN => Err(Fault::StoreIncomplete),
            _ => Err(Fault::Internal),
        }
    }

    /// Tells what became of a claim, now or later; says whether it waited, where that is known.
    pub(super) async fn conclude(&self, claim: ClaimId, conclusion: Conclusion) -> bool {
        let word = Word::Concluded(conclusion);
        match self.answer::<i64>(self.conclusion(claim, word)).await {
            Ok(waited) => waited == 1,
            Err(_) => {
                self.owe(claim, word);
                false
            }
        }
    }

    fn conclusion(&self, claim: ClaimId, word: Word) -> ScriptInvocation<'static> {
        let letter = match word {
            Word::Concluded(Conclusion::Settled) => "s",
            Word::Concluded(Conclusion::Unknown) => "u",
            Word::Concluded(Conclusion::Released) => "r",
            Word::Withdrawn => "w",
        };
        let mut invocation = CONCLUDE.key(self.keys.claim(claim));
        invocation.key(&self.keys.since).arg(const_hex::encode(claim.holder.bytes())).arg(letter);
        invocation
    }

    /// Whether a tenant holds a lease, and for how much longer.
    pub(super) async fn standing(&self, tenant: &Tenant) -> Result<(Standing, Duration), Fault> {
        let mut invocation = STANDING.key(&self.keys.leases);
        invocation.key(&self.keys.since).arg(member(tenant));
        let left = self.answer::<i64>(invocation).await?;
        let standing = match left {
            1.. => Standing::Held,
            0 => Standing::Over,
            _ => Standing::None,
        };
        Ok((standing, Duration::from_millis(u64::try_from(left).unwrap_or(0))))
    }

    pub(super) async fn grant(&self, grant: &Grant, most: usize) -> Result<(), Fault> {
        let mut invocation = GRANT.key(&self.keys.leases);
        invocation.key(&self.keys.since).arg(member(&grant.tenant)).arg(whole(grant.ttl)).arg(most);
        if self.answer::<i64>(invocation).await? == 1 { Ok(()) } else { Err(Fault::StoreFull) }
    }

    /// Keeps a secret. Where another replica learned another one at the same moment this is a fault: by the provider's
    /// next try that one is known here.
    pub(super) async fn learn(&self, endpoint: &str, secret: &[u8]) -> Result<(), Fault> {
        let mut invocation = LEARN.key(&self.keys.learned);
        invocation.key(&self.keys.since).arg(endpoint).arg(secret);
        if self.answer::<i64>(invocation).await? == 1 { Ok(()) } else { Err(Fault::StoreUnavailable) }
    }

    /// Keeps the connection, for ever. `learned` takes the secrets that any replica learned.
    pub(super) async fn attend(&self, clock: Clock, learned: impl Fn(Vec<(String, Secret)>)) {
        let mut owed = self.owed.lock().await;
        let mut attendant = Attendant { redis: self, clock, secrets: 0, heard: None };
        loop {
            let link = match timeout(CONNECT, self.connector.lock().await.connect()).await {
                Ok(Ok(link)) => {
                    attendant.beat(&link, &learned).await.map(|()| link).map_err(|missed| missed.to_string())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no connection in time".to_owned()),
            };
            match link {
                Ok(link) => {
                    self.late.store(0, Ordering::Relaxed);
                    let link = Arc::new(link);
                    self.link.store(Some(Arc::clone(&link)));
                    self.tried.send_replace(true);
                    tracing::info!("the store answers");
                    warn_if_forgetful(&link).await;
                    attendant.while_up(&link, &mut owed, &learned).await;
                }
                Err(why) => {
                    if !self.tried.send_replace(true) {
                        tracing::error!(why, "the store cannot be reached");
                    }
                    tracing::debug!(why, "the store still cannot be reached");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Why a beat was missed.
enum Missed {
    Late,
    Error(String),
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Error(why) => f.write_str(why),
        }
    }
}

/// What looks after the connection.
struct Attendant<'r> {
    redis: &'r Redis,
    clock: Clock,
    /// How many secrets were learned, when that was last asked.
    secrets: i64,
    /// The server's clock and ours, when it was last heard.
    heard: Option<(i64, Duration)>,
}

impl Attendant<'_> {
    /// Until the breaker opens.
    async fn while_up(
        &mut self,
        link: &Arc<Link>,
        owed: &mut mpsc::Receiver<Debt>,
        learned: &impl Fn(Vec<(String, Secret)>),
    ) {
        let mut beats = tokio::time::interval(BEAT);
        while self.redis.is_up() {
            tokio::select! {
                () = self.redis.opened.notified() => {}
                _ = beats.tick() => {
                    match self.beat(link, learned).await {
                        Ok(()) => {}
                        Err(Missed::Late) => drop(self.redis.is_late(link)),
                        Err(Missed::Error(why)) => self.redis.open(link, &why),
                    }
                }
                Some((claim, word)) = owed.recv() => {
                    if self.redis.answer::<i64>(self.redis.conclusion(claim, word)).await.is_err() {
                        self.redis.owe(claim, word);
                    }
                }
            }
        }
    }

    /// Makes sure that the server is well, and hears what other replicas learned.
    async fn beat(&mut self, link: &Link, learned: &impl Fn(Vec<(String, Secret)>)) -> Result<(), Missed> {
        let now = self.clock.now();
        // A server's clock that ran ahead has ended claims before their time.
        let ahead = |(theirs, ours): (i64, Duration), clock: i64| {
            let passed = i64::try_from(now.monotonic.saturating_sub(ours).as_millis()).unwrap_or(i64::MAX);
            clock.saturating_sub(theirs).saturating_sub(passed) > whole(DRIFT)
        };
        let (clock, secrets) = self.ask_beat(link, now, false).await?;
        if self.heard.is_some_and(|heard| ahead(heard, clock)) {
            tracing::warn!("the store's clock jumped; what it forgot by that is treated as forgotten");
            self.ask_beat(link, now, true).await?;
        }
        self.heard = Some((clock, now.monotonic));
        if secrets != self.secrets {
            let mut command = redis::cmd("HGETALL");
            command.arg(&self.redis.keys.learned);
            let rows = timeout(CONNECT, link.clone().query::<Vec<(String, Vec<u8>)>>(&command)).await;
            let rows = rows.map_err(|_| Missed::Late)?.map_err(|error| Missed::Error(error.to_string()))?;
            learned(rows.into_iter().map(|(endpoint, secret)| (endpoint, Secret::new(secret))).collect());
            self.secrets = secrets;
        }
        Ok(())
    }

    async fn ask_beat(&self, link: &Link, now: Now, begin: bool) -> Result<(i64, i64), Missed> {
        let mut invocation = BEAT_SCRIPT.key(&self.redis.keys.learned);
        invocation.key(&self.redis.keys.since).arg(milliseconds(now)).arg(i64::from(begin));
        match timeout(self.redis.deadline, link.clone().run(invocation)).await {
            Ok(answer) => answer.map_err(|error| Missed::Error(error.to_string())),
            Err(_) => Err(Missed::Late),
        }
    }
}

/// A server that makes room by forgetting forgets claims.
async fn warn_if_forgetful(link: &Link) {
    let mut command = redis::cmd("INFO");
    command.arg("memory");
    let Ok(Ok(text)) = timeout(CONNECT, link.clone().query::<String>(&command)).await else { return };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if field("maxmemory").is_some_and(|most| most != "0")
        && let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction")
    {
        tracing::warn!(policy, "the store forgets claims when it is full; set `maxmemory-policy noeviction`");
    }
}

/// The wall clock, in milliseconds.
fn milliseconds(now: Now) -> i64 {
    now.wall.0.saturating_mul(1000)
}

fn skew() -> i64 {
    whole(SKEW)
}

/// Milliseconds.
fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A tenant, as a member of the set of leases. An endpoint's name holds no NUL.
fn member(tenant: &Tenant) -> String {
    format!("{}\0{}", tenant.endpoint, tenant.address)
}
