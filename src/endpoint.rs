//! Compiled receivers, and which of them a request is for.
//!
//! The proxy's route may name the endpoint; otherwise host and path find it. Nothing a sender writes into a header,
//! a query or a body can: those would let it choose which secret it is judged by.

use crate::{
    challenge::Challenge,
    clock::UnixSeconds,
    decision::Rejection,
    delivery::{ClientAddress, Delivery},
    received::Place,
    replay::{Digests, ReplayRule},
    scheme::Scheme,
    secret::LearnedSecret,
};
use std::{collections::HashMap, sync::Arc};

/// One receiver, ready to judge. Built by `config`, after which nothing in it can be invalid.
#[derive(Debug)]
pub struct Endpoint {
    /// The name from the configuration.
    pub name: String,
    /// The preset's name, or `custom`.
    pub provider: String,
    /// What becomes of rejected deliveries.
    pub mode: Mode,
    /// Methods it takes.
    pub methods: Vec<String>,
    /// Longest body in bytes.
    pub body_limit: usize,
    /// Whether a body that came as text is believed to be the bytes.
    pub text_body: bool,
    /// Handshakes.
    pub challenges: Vec<Challenge>,
    /// How a delivery proves its sender.
    pub scheme: Scheme,
    /// What rejected senders are told.
    pub refusals: Refusals,
    /// When the provider may hand over a secret.
    pub enrolment: Option<EnrolmentWindow>,
    /// Whose address a client's is, where a token or password could be guessed.
    pub guessed_by: Option<ClientAddress>,
    /// Whether to verify takes long, whatever the body is.
    pub takes_long: bool,
    /// Which secrets and keys have an end, and when.
    pub ends: Vec<(String, UnixSeconds)>,
    /// How it guards against replays, where it does.
    pub replay: Option<ReplayRules>,
    /// Where a delivery's id stands.
    pub delivery_id: Option<Place>,
    /// Where a delivery's event type stands.
    pub event_type: Option<Place>,
}

/// How an endpoint guards against replays, by what the asking proxy can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRules {
    /// Where outcomes are told, if the configuration says that they are.
    pub told: ReplayRule,
    /// Where they are not.
    pub untold: ReplayRule,
}

/// When the provider may hand over a secret, and where it goes.
#[derive(Debug)]
pub struct EnrolmentWindow {
    /// Not after this moment (inclusive).
    pub until: UnixSeconds,
    /// Where it goes.
    pub slot: Arc<LearnedSecret>,
}

/// What becomes of rejected deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are refused.
    Enforce,
    /// They are forwarded, marked, logged and counted.
    Observe,
}

/// What rejected senders are told.
#[derive(Debug, Default)]
pub struct Refusals {
    /// For any rejection that the scheme raised.
    pub common: Option<Refusal>,
    /// For particular reasons.
    pub by_reason: Vec<(Rejection, Refusal)>,
}

/// A reply to a rejected sender, as far as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// Instead of the reason's own status.
    pub status: Option<u16>,
    /// Content type and text, instead of the request id.
    pub body: Option<(&'static str, String)>,
}

impl Refusals {
    /// The configured reply to a rejection. One written for the reason wins; the common one is for failed proofs,
    /// so that a wrong method stays 405 and an oversized body 413.
    #[must_use]
    pub fn find(&self, rejection: Rejection) -> Option<&Refusal> {
        self.by_reason
            .iter()
            .find(|(reason, _)| *reason == rejection)
            .map(|(_, refusal)| refusal)
            .or_else(|| self.common.as_ref().filter(|_| rejection.status() == 401))
    }
}

impl Refusal {
    /// The reply for `rejection`, where the configuration gives it a body.
    #[must_use]
    pub fn reply(&self, rejection: Rejection) -> (u16, Option<&(&'static str, String)>) {
        (self.status.unwrap_or(rejection.status()), self.body.as_ref())
    }
}

impl Endpoint {
    /// The value of an `Allow` header.
    #[must_use]
    pub fn allow(&self) -> String {
        self.methods.join(", ")
    }
}

/// All receivers.
#[derive(Debug, Default)]
pub struct Endpoints {
    names: HashMap<String, Arc<Endpoint>>,
    paths: HashMap<String, Vec<Claim>>,
    /// Longest first.
    prefixes: Vec<(String, Claim)>,
    /// How what was signed is digested, where it must be known again.
    digests: Digests,
}

#[derive(Debug, Clone)]
struct Claim {
    /// In lower case, without a port; none for any host.
    host: Option<String>,
    endpoint: Arc<Endpoint>,
}

/// Where an endpoint is, without a proxy that names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Match {
    /// In lower case, without a port; none for any host.
    pub host: Option<String>,
    /// The path.
    pub path: PathMatch,
}

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// Everything below; ends in `/`.
    Prefix(String),
}

impl Endpoints {
    /// The same receivers, for a store that knows deliveries by other digests.
    #[must_use]
    pub fn digested_by(self, digests: Digests) -> Self {
        Self { digests, ..self }
    }

    /// How a receiver's deliveries are digested; not at all where it does not guard against replays.
    #[must_use]
    pub fn digests_for(&self, endpoint: &Endpoint) -> Option<&Digests> {
        endpoint.replay.as_ref().map(|_| &self.digests)
    }

    /// Adds a receiver, if no other one has its name or its place; says which one has.
    pub fn insert(&mut self, endpoint: Endpoint, place: Option<Match>) -> Result<(), String> {
        let endpoint = Arc::new(endpoint);
        if let Some(Match { host, path }) = place {
            let claim = Claim { host, endpoint: Arc::clone(&endpoint) };
            let rivals: Box<dyn Iterator<Item = &Claim>> = match &path {
                PathMatch::Exact(path) => Box::new(self.paths.get(path).into_iter().flatten()),
                PathMatch::Prefix(path) => {
                    Box::new(self.prefixes.iter().filter(move |(p, _)| p == path).map(|(_, c)| c))
                }
            };
            for rival in rivals {
                if rival.host == claim.host {
                    return Err(rival.endpoint.name.clone());
                }
            }
            match path {
                PathMatch::Exact(path) => self.paths.entry(path).or_default().push(claim),
                PathMatch::Prefix(path) => {
                    self.prefixes.push((path, claim));
                    self.prefixes.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
                }
            }
        }
        self.names.insert(endpoint.name.clone(), endpoint);
        Ok(())
    }

    /// The endpoint a request is for.
    #[must_use]
    pub fn find(&self, delivery: &Delivery<'_>) -> Option<&Arc<Endpoint>> {
        match delivery.route_endpoint {
            Some(name) => self.names.get(name),
            None => self.find_by_place(delivery),
        }
    }

    /// An exact path wins over a prefix; then a host's own claim over one for any host; then a longer prefix over a shorter.
    fn find_by_place(&self, delivery: &Delivery<'_>) -> Option<&Arc<Endpoint>> {
        let (path, host) = (delivery.path(), without_port(delivery.host));
        let own = |claim: &&Claim| claim.host.as_ref().is_some_and(|h| h.eq_ignore_ascii_case(host));
        let any = |claim: &&Claim| claim.host.is_none();
        let exact = || self.paths.get(path).into_iter().flatten();
        let below =
            || self.prefixes.iter().filter(|(prefix, _)| path.starts_with(prefix.as_str())).map(|(_, claim)| claim);
        exact()
            .find(own)
            .or_else(|| exact().find(any))
            .or_else(|| below().find(own))
            .or_else(|| below().find(any))
            .map(|claim| &claim.endpoint)
    }

    /// The endpoint with a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.names.get(name)
    }

    /// All endpoints, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.names.values()
    }
}

/// A host without its port; IPv6 literals keep their brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_part_of_a_host() {
        assert_eq!(without_port("Hooks.Example.com:8443"), "Hooks.Example.com");
        assert_eq!(without_port("hooks.example.com"), "hooks.example.com");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
