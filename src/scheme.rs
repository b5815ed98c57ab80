//! How a delivery proves who sent it.
//!
//! Enters: a [`Delivery`] whose whole body is at hand, and [`Now`]. Leaves: a [`Verified`], which nothing outside
//! this room can make, or the most telling [`Denial`]. One file per mechanism, named for the mechanism; a company's
//! name never appears here. Mechanisms combine by [`Scheme::AllOf`] and [`Scheme::AnyOf`].
//!
//! Two rules hold in every mechanism. Time is judged *after* the signature, so `timestamp_too_old` always means an
//! authentic delivery and a forger only ever shows as a mismatch. And what was signed is fed to the MAC as the
//! bytes that arrived, never as text rendered again.

pub mod algorithm;
pub mod basic;
pub mod canonical;
pub mod certificate_chain;
pub mod decryption;
pub mod digest;
pub mod encoding;
pub mod http_message_signature;
pub mod http_signature;
pub mod ip_lease;
pub mod jwt;
pub mod key_ring;
pub mod listed_headers;
pub mod mac;
pub mod network;
pub mod oracle;
pub mod public_key;
pub mod remote_keys;
pub mod signature;
pub mod signed;
pub mod signed_content;
pub mod streamed;
pub mod timestamp;
pub mod token;

use crate::{
    clock::{Now, UnixSeconds},
    condition::Condition,
    decision::{Denial, Fault, Rejection},
    delivery::Delivery,
    received::Received,
    replay::SignedDigest,
    secret::{Key, Label},
};
use ip_lease::{Grant, Tenant};
use std::{sync::Arc, time::Duration};

/// A compiled scheme.
#[derive(Debug)]
pub enum Scheme {
    /// A signature over signed content.
    Signed(signed::Signed),
    /// A JSON Web Token or JWS.
    Jwt(jwt::Jwt),
    /// A shared token, sent as it is.
    Token(token::Token),
    /// A client address that once showed a token.
    IpLease(ip_lease::IpLease),
    /// HTTP Signatures, draft-cavage 03–12.
    HttpSignature(http_signature::HttpSignature),
    /// HTTP Message Signatures, RFC 9421.
    HttpMessageSignature(http_message_signature::HttpMessageSignature),
    /// HTTP Basic credentials.
    Basic(basic::Basic),
    /// Networks that deliveries may come from.
    Networks(network::Networks),
    /// Every member must hold.
    AllOf(Vec<Scheme>),
    /// One member must hold.
    AnyOf(Vec<Scheme>),
    /// The first member whose conditions hold decides alone.
    Cases(Vec<(Vec<Condition>, Scheme)>),
}

/// Proof that a delivery satisfied its endpoint's scheme, as far as the delivery alone can tell. Only this room
/// makes one, and `admission` consumes it.
#[derive(Debug)]
pub struct Verified {
    evidence: Evidence,
    secret: Option<Arc<Label>>,
    signed: Option<SignedDigest>,
    signed_at: Option<UnixSeconds>,
    tenants: Vec<Tenant>,
}

/// What a mechanism found out: whose secret or key it was, and, where anybody wants to know, what it signed.
#[derive(Debug)]
pub struct Proof {
    /// Whose.
    pub label: Arc<Label>,
    /// What. Nothing where nothing is signed.
    pub signed: Option<SignedDigest>,
    /// When, by the signer's clock, where that is signed and was judged.
    pub signed_at: Option<UnixSeconds>,
}

/// What kind of proof the upstream is told of; ordered from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// An address in a configured network. Says nothing about the body.
    Network,
    /// An address that holds a lease. Says nothing about the body.
    IpLease,
    /// Basic credentials. Say nothing about the body.
    Basic,
    /// A token. Says nothing about the body.
    Token,
    /// A signature over less than the body.
    PartialSignature,
    /// A signed token that says nothing about the body.
    Jwt,
    /// A signature over the body.
    Signature,
}

impl Evidence {
    /// Every variant.
    pub const ALL: &'static [Self] =
        &[Self::Signature, Self::Jwt, Self::PartialSignature, Self::Token, Self::Basic, Self::IpLease, Self::Network];

    /// The stable spelling, as in `x-hookwarden-verified-by`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::IpLease => "ip-lease",
            Self::Basic => "basic",
            Self::Token => "token",
            Self::PartialSignature => "partial-signature",
            Self::Jwt => "jwt",
            Self::Signature => "signature",
        }
    }
}

impl Scheme {
    /// Verifies a delivery's proof.
    pub fn verify(&self, received: &Received<'_>, now: Now) -> Result<Verified, Denial> {
        let by = |evidence| move |proof| Verified::by(evidence, proof);
        let unsigned = |label| Proof { label, signed: None, signed_at: None };
        match self {
            Self::Signed(signed) => {
                let evidence = if signed.covers_body { Evidence::Signature } else { Evidence::PartialSignature };
                signed.verify(received, now).map(by(evidence))
            }
            Self::Jwt(jwt) => {
                let evidence = if jwt.covers_body { Evidence::Signature } else { Evidence::Jwt };
                jwt.verify(received, now).map(by(evidence))
            }
            Self::Token(token) => token.verify(received, now).map(unsigned).map(by(Evidence::Token)),
            Self::HttpSignature(scheme) => {
                let evidence = if scheme.covers_body { Evidence::Signature } else { Evidence::PartialSignature };
                scheme.verify(received, now).map(by(evidence))
            }
            Self::HttpMessageSignature(scheme) => {
                let evidence = if scheme.covers_body { Evidence::Signature } else { Evidence::PartialSignature };
                scheme.verify(received, now).map(by(evidence))
            }
            Self::Basic(basic) => basic.verify(received.delivery, now).map(unsigned).map(by(Evidence::Basic)),
            Self::IpLease(lease) => lease.tenant(received.delivery).map(Verified::provided_lease),
            Self::Networks(networks) => networks.verify(received.delivery).map(|()| Verified::from_network()),
            Self::AllOf(members) => all_of(members, received, now),
            Self::AnyOf(members) => any_of(members, received, now),
            Self::Cases(cases) => {
                let holds = |conditions: &[Condition]| conditions.iter().all(|condition| condition.holds(received));
                let case = cases.iter().find(|(conditions, _)| holds(conditions));
                case.ok_or(Rejection::KindNotAccepted)?.1.verify(received, now)
            }
        }
    }

    /// Begins to verify a delivery whose body is still to come; nothing where it must be at hand. `received` has no body.
    #[must_use]
    pub fn stream(&self, received: &Received<'_>, now: Now) -> Option<Result<streamed::Streamed, Denial>> {
        let Self::Signed(signed) = self else { return None };
        signed.streams().then(|| signed.stream(received, now))
    }

    /// What a request that asks for a lease comes to; nothing when this scheme knows no such request or this is
    /// not one. Credentials that accompany every request must accompany this one too.
    #[must_use]
    pub fn enrol(&self, delivery: &Delivery<'_>, now: Now) -> Option<Result<Grant, Denial>> {
        match self {
            Self::IpLease(lease) => lease.enrol(delivery, now),
            Self::AllOf(members) => {
                let grant = members.iter().find_map(|member| member.enrol(delivery, now))?;
                let credentials = members.iter().find_map(|member| {
                    if let Self::Basic(basic) = member {
                        basic.verify(delivery, now).err()
                    } else if let Self::Networks(networks) = member {
                        networks.verify(delivery).err()
                    } else {
                        None
                    }
                });
                Some(credentials.map_or(grant, Err))
            }
            Self::AnyOf(members) => members.iter().find_map(|member| member.enrol(delivery, now)),
            Self::Signed(_)
            | Self::Jwt(_)
            | Self::Token(_)
            | Self::HttpSignature(_)
            | Self::HttpMessageSignature(_)
            | Self::Basic(_)
            | Self::Networks(_)
            | Self::Cases(_) => None,
        }
    }

    /// Makes every MAC in this scheme refuse what an oracle signs for anybody.
    pub fn beware_of(&mut self, oracles: &[oracle::Oracle]) {
        match self {
            Self::Signed(signed) => signed.oracles.extend_from_slice(oracles),
            Self::AllOf(members) | Self::AnyOf(members) => {
                for member in members {
                    member.beware_of(oracles);
                }
            }
            Self::Cases(cases) => {
                for (_, member) in cases {
                    member.beware_of(oracles);
                }
            }
            // What is signed there has quotes and line ends, which no challenge has; a token has neither, and compiling
            // refuses one beside such a challenge. The others sign nothing.
            Self::HttpSignature(_)
            | Self::HttpMessageSignature(_)
            | Self::Jwt(_)
            | Self::Token(_)
            | Self::IpLease(_)
            | Self::Basic(_)
            | Self::Networks(_) => {}
        }
    }

    /// Whether a client could try secrets one by one: what it sends is the secret, and every try is one request.
    #[must_use]
    pub fn can_be_guessed(&self) -> bool {
        self.flatten().any(|scheme| matches!(scheme, Self::IpLease(_) | Self::Basic(_)))
    }

    /// Whether to verify can take as long as hashing some hundred kilobytes, however short the body is.
    #[must_use]
    pub fn takes_long(&self) -> bool {
        self.flatten().any(|scheme| match scheme {
            Self::Signed(signed) => match &signed.signer {
                signed::Signer::PrivateKey { algorithm, keys, .. } => keys.takes_long(&[*algorithm]),
                signed::Signer::Mac { .. } => false,
            },
            Self::Jwt(jwt) => match &jwt.issuer {
                jwt::Issuer::PrivateKey { algorithms, keys } => keys.takes_long(algorithms),
                // Three signatures, the upper ones by whatever the authorities use, and three certificates to be read.
                jwt::Issuer::Chain { .. } => true,
                jwt::Issuer::Mac(_) => false,
            },
            Self::HttpMessageSignature(scheme) => scheme.keys.takes_long(&scheme.algorithms),
            // Of RSA there is PKCS #1 v1.5 alone, so that only a key can make it long.
            Self::HttpSignature(scheme) => scheme.keys.takes_long(&[]),
            Self::Token(_)
            | Self::IpLease(_)
            | Self::Basic(_)
            | Self::Networks(_)
            // Their members come by themselves.
            | Self::AllOf(_)
            | Self::AnyOf(_)
            | Self::Cases(_) => false,
        })
    }

    /// Whether every delivery that it verifies has signed content.
    #[must_use]
    pub fn signs(&self) -> bool {
        match self {
            Self::Signed(_) | Self::Jwt(_) | Self::HttpSignature(_) | Self::HttpMessageSignature(_) => true,
            Self::Token(_) | Self::IpLease(_) | Self::Basic(_) | Self::Networks(_) => false,
            Self::AllOf(members) => members.iter().any(Self::signs),
            Self::AnyOf(members) => members.iter().all(Self::signs),
            Self::Cases(cases) => cases.iter().all(|(_, member)| member.signs()),
        }
    }

    /// Whether every delivery that it verifies has a signed body.
    #[must_use]
    pub fn signs_body(&self) -> bool {
        match self {
            Self::Signed(signed) => signed.covers_body,
            Self::Jwt(jwt) => jwt.covers_body,
            Self::HttpSignature(scheme) => scheme.covers_body,
            Self::HttpMessageSignature(scheme) => scheme.covers_body,
            Self::Token(_) | Self::IpLease(_) | Self::Basic(_) | Self::Networks(_) => false,
            Self::AllOf(members) => members.iter().any(Self::signs_body),
            Self::AnyOf(members) => members.iter().all(Self::signs_body),
            Self::Cases(cases) => cases.iter().all(|(_, member)| member.signs_body()),
        }
    }

    /// How long one delivery can pass for fresh, if its age is judged.
    #[must_use]
    pub fn fresh_for(&self) -> Option<Duration> {
        let both_sides = |tolerance: timestamp::Tolerance| tolerance.past.saturating_add(tolerance.future);
        match self {
            Self::Signed(signed) => signed.timestamp.as_ref().map(|rule| both_sides(rule.tolerance)),
            Self::Jwt(jwt) => jwt.time.max_age.map(|age| age.saturating_add(jwt.time.leeway)),
            Self::HttpSignature(scheme) => Some(both_sides(scheme.tolerance)),
            Self::HttpMessageSignature(scheme) => Some(both_sides(scheme.tolerance)),
            Self::Token(_) | Self::IpLease(_) | Self::Basic(_) | Self::Networks(_) => None,
            // Whichever member judges most strictly decides.
            Self::AllOf(members) => members.iter().filter_map(Self::fresh_for).min(),
            Self::AnyOf(members) => longest(members.iter()),
            Self::Cases(cases) => longest(cases.iter().map(|(_, member)| member)),
        }
    }

    /// This scheme and every scheme inside it.
    pub fn flatten(&self) -> Box<dyn Iterator<Item = &Scheme> + '_> {
        let members: Box<dyn Iterator<Item = &Scheme> + '_> = match self {
            Self::AllOf(members) | Self::AnyOf(members) => Box::new(members.iter()),
            Self::Cases(cases) => Box::new(cases.iter().map(|(_, scheme)| scheme)),
            Self::Signed(_)
            | Self::Jwt(_)
            | Self::Token(_)
            | Self::IpLease(_)
            | Self::HttpSignature(_)
            | Self::HttpMessageSignature(_)
            | Self::Basic(_)
            | Self::Networks(_) => Box::new(std::iter::empty()),
        };
        Box::new(std::iter::once(self).chain(members.flat_map(Scheme::flatten)))
    }
}

/// The longest time of all, if every one has one.
fn longest<'s>(members: impl Iterator<Item = &'s Scheme>) -> Option<Duration> {
    members.map(Scheme::fresh_for).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// All members must hold; the first failure is the answer, because a later success could not mend it.
fn all_of(members: &[Scheme], received: &Received<'_>, now: Now) -> Result<Verified, Denial> {
    members
        .iter()
        .map(|member| member.verify(received, now))
        .reduce(|all, next| Ok(all?.and(next?)))
        // An empty list proves nothing. Compiling refuses one; were it to slip through, it must not verify.
        .unwrap_or(Err(Fault::Internal.into()))
}

/// One member must hold. Members that need no stored lease are believed first: a proof at hand beats one that
/// depends on state. Of several failures the most telling one is reported.
fn any_of(members: &[Scheme], received: &Received<'_>, now: Now) -> Result<Verified, Denial> {
    let mut failure: Option<Denial> = None;
    let mut provided_lease = None;
    for member in members {
        match member.verify(received, now) {
            Ok(verified) if verified.tenants.is_empty() => return Ok(verified),
            Ok(verified) => provided_lease = provided_lease.or(Some(verified)),
            Err(denial) => failure = Some(failure.map_or(denial, |so_far| so_far.more_telling(denial))),
        }
    }
    provided_lease.ok_or(failure.unwrap_or(Fault::Internal.into()))
}

impl Verified {
    fn by(evidence: Evidence, proof: Proof) -> Self {
        Self {
            evidence,
            secret: Some(proof.label),
            signed: proof.signed,
            signed_at: proof.signed_at,
            tenants: Vec::new(),
        }
    }

    /// The proof of a body that was verified as it came in.
    pub fn by_stream(streamed: streamed::Streamed, now: Now) -> Result<Self, Denial> {
        streamed.finish(now).map(|proof| Self::by(Evidence::Signature, proof))
    }

    fn provided_lease(tenant: Tenant) -> Self {
        Self { evidence: Evidence::IpLease, secret: None, signed: None, signed_at: None, tenants: vec![tenant] }
    }

    fn from_network() -> Self {
        Self { evidence: Evidence::Network, secret: None, signed: None, signed_at: None, tenants: Vec::new() }
    }

    /// Both proofs, told as the stronger one.
    fn and(mut self, mut other: Self) -> Self {
        if other.evidence > self.evidence {
            std::mem::swap(&mut self, &mut other);
        }
        self.tenants.append(&mut other.tenants);
        // The stronger proof says what the delivery is: of the weaker one less is signed.
        if self.signed.is_none() {
            (self.signed, self.signed_at) = (other.signed, other.signed_at);
        }
        self
    }

    /// What kind of proof it is.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Which secret or key matched, where one did.
    #[must_use]
    pub fn secret(&self) -> Option<&Arc<Label>> {
        self.secret.as_ref()
    }

    /// What was signed, if anything was and the endpoint guards against replays.
    #[must_use]
    pub fn signed(&self) -> Option<SignedDigest> {
        self.signed
    }

    /// When it was signed, by the signer's clock, where that is signed too.
    #[must_use]
    pub fn signed_at(&self) -> Option<UnixSeconds> {
        self.signed_at
    }

    /// The leases this proof depends on; admission must find every one of them held.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }
}

/// The first active key that `matches`. Distinguishes "none is active" (ours) from "none matches" (theirs).
fn find_key<T>(
    keys: &[Key<T>],
    now: Now,
    mismatch: impl Into<Denial>,
    mut matches: impl FnMut(&T) -> bool,
) -> Result<Arc<Label>, Denial> {
    let mut any_active = false;
    for key in keys.iter().filter(|key| key.is_active(now)) {
        any_active = true;
        if matches(&key.value) {
            return Ok(Arc::clone(&key.label));
        }
    }
    Err(if any_active { mismatch.into() } else { Fault::NoActiveSecret.into() })
}
