//! The last gate: what depends on state.
//!
//! A [`Verified`] delivery becomes [`Admitted`] once the state it depends on has been asked. This is the only room
//! that asks; what answers is behind [`State`], which may be memory, a file or a server. State is asked only after
//! the proof, so strangers can neither fill it nor read it.

use crate::{
    clock::Now,
    decision::{Answer, AnswerReason, Denial, Fault, Rejection, Reply},
    replay::{Claim, ClaimId, Claimed, Duplicate, Holder, OnDuplicate, ReplayKey, ReplayRule},
    scheme::{
        Evidence, Verified,
        ip_lease::{Grant, Tenant},
    },
    secret::{Label, LearnedSecret, Lesson, Secret},
};
use std::{future::Future, net::IpAddr, sync::Arc};

/// Proof that a verified delivery may pass. Only this room makes one.
#[derive(Debug)]
pub struct Admitted {
    verified: Verified,
    claim: Option<ClaimId>,
    duplicate: Option<Duplicate>,
}

/// What admission comes to.
#[derive(Debug)]
pub enum Admission {
    /// The delivery may pass.
    Admitted(Admitted),
    /// It was there before, and hookwarden answers in the upstream's place.
    Answered(Answer),
}

impl Admitted {
    /// What kind of proof it was.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.verified.evidence()
    }

    /// Which secret or key matched, where one did.
    #[must_use]
    pub fn secret(&self) -> Option<&Arc<Label>> {
        self.verified.secret()
    }

    /// The claim that waits for the upstream's outcome, where one does.
    #[must_use]
    pub fn claim(&self) -> Option<ClaimId> {
        self.claim
    }

    /// Whether it was there before, and passes all the same.
    #[must_use]
    pub fn duplicate(&self) -> Option<Duplicate> {
        self.duplicate
    }
}

/// Whether an address holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Held,
    /// It did; the store has now forgotten it.
    Over,
    /// It does not.
    None,
}

/// What remembers.
pub trait State: Send + Sync {
    /// Whether `tenant` holds a lease. A lease that is over is said to be so once, and then forgotten.
    fn standing(&self, tenant: &Tenant, now: Now) -> impl Future<Output = Result<Standing, Fault>> + Send;

    /// Keeps a secret that `endpoint` learned, durably where the store is durable, before it returns.
    fn remember(&self, endpoint: &str, secret: &[u8]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether a client's guess at a token or password is heard; counts it if it was wrong.
    fn hear(&self, client: IpAddr, wrong: bool, now: Now) -> bool;

    /// Claims to be the first, atomically and durably where the store is durable, before it returns.
    fn claim(&self, claim: &Claim, now: Now) -> impl Future<Output = Result<Claimed, Fault>> + Send;

    /// Writes a lease, durably where the store is durable, before it returns.
    fn grant(&self, grant: &Grant, now: Now) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Admits a verified delivery if every lease it depends on is held, and if it is not a replay where its endpoint
/// guards against them.
pub async fn admit(
    verified: Verified,
    guard: Option<Guard<'_>>,
    state: &impl State,
    now: Now,
) -> Result<Admission, Denial> {
    for tenant in verified.tenants() {
        match state.standing(tenant, now).await? {
            Standing::Held => {}
            Standing::Over => return Err(Rejection::LeaseExpired.into()),
            Standing::None => return Err(Rejection::LeaseMissing.into()),
        }
    }
    // Last of all: whoever is refused for another reason leaves no claim.
    let (Some(guard), Some(signed)) = (guard, verified.signed()) else {
        return Ok(Admission::Admitted(Admitted { verified, claim: None, duplicate: None }));
    };
    let Guard { endpoint, rule, holder } = guard;
    let claim = Claim { key: ReplayKey::new(endpoint, signed), holder, rule, signed_at: verified.signed_at() };
    let told = rule.outcome_within.map(|_| ClaimId { key: claim.key, holder });
    let admitted = |claim, duplicate| Ok(Admission::Admitted(Admitted { verified, claim, duplicate }));
    match (state.claim(&claim, now).await, rule.on_duplicate) {
        (Ok(Claimed::First | Claimed::Again), _) => admitted(told, None),
        // What may have been lost is sent on: the upstream can tell better than anybody here.
        (Ok(Claimed::Unknown), _) => admitted(told, Some(Duplicate::Possible)),
        (Ok(Claimed::Settled), OnDuplicate::Mark) => admitted(None, Some(Duplicate::Certain)),
        (Ok(Claimed::Pending) | Err(_), OnDuplicate::Mark) => admitted(None, Some(Duplicate::Possible)),
        (Ok(Claimed::Settled), OnDuplicate::Deny) => Err(Rejection::Replayed.into()),
        (Ok(Claimed::Settled), OnDuplicate::Answer200) => Ok(Admission::Answered(Answer {
            reason: AnswerReason::Duplicate,
            reply: Reply { status: 200, ..Reply::default() },
        })),
        (Ok(Claimed::Pending), OnDuplicate::Deny | OnDuplicate::Answer200) => Err(Fault::OutcomePending.into()),
        (Err(fault), OnDuplicate::Deny | OnDuplicate::Answer200) => Err(fault.into()),
    }
}

/// What admission guards against replays with.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'e> {
    /// The endpoint's name.
    pub endpoint: &'e str,
    /// Its rule.
    pub rule: ReplayRule,
    /// Who asks.
    pub holder: Holder,
}

/// A secret about to be learned.
#[derive(Debug)]
pub struct Enrolment {
    /// Which endpoint learns it.
    pub endpoint: String,
    /// The secret.
    pub secret: Secret,
    /// Where it goes.
    pub slot: Arc<LearnedSecret>,
    /// What the provider is told once it is kept.
    pub answer: Answer,
}

/// Learns a secret, once, and answers the provider when it is kept.
pub async fn learn(enrolment: Enrolment, state: &impl State) -> Result<Answer, Denial> {
    let Enrolment { endpoint, secret, slot, answer } = enrolment;
    match slot.learn(secret.expose()) {
        Lesson::Refused => Err(Rejection::EnrolmentClosed.into()),
        // The one who was first may have gone before the disk answered; nobody is told of what could still be lost.
        Lesson::Same => state.remember(&endpoint, secret.expose()).await.map(|()| answer).map_err(Denial::from),
        Lesson::New => {
            if let Err(fault) = state.remember(&endpoint, secret.expose()).await {
                slot.unlearn();
                return Err(fault.into());
            }
            Ok(Answer { reason: AnswerReason::SecretEnrolled, ..answer })
        }
    }
}

/// Writes a lease and answers the client; in this order, so that nobody is told of a lease that a crash could
/// still lose.
pub async fn enrol(grant: Grant, state: &impl State, now: Now) -> Result<Answer, Denial> {
    state.grant(&grant, now).await?;
    Ok(Answer { reason: AnswerReason::LeaseGranted, reply: grant.granted })
}
