//! How an endpoint guards against replays, where its owner does not say: in the way that loses no delivery.
//!
//! `deny` needs two things. The age of a delivery must be judged, or a claim would have to be remembered for ever.
//! And an honest retry must be told from a replay: by the proxy, which tells what the upstream made of the first try,
//! or by the provider, which signs every try anew. Where one of them is missing, a delivery that was there before is
//! forwarded and marked. Where nothing that is signed tells one delivery from another, there is nothing to guard by.

use super::{
    file,
    problem::{Findings, Path},
    scheme::duration,
};
use crate::{
    endpoint::ReplayRules,
    replay::{OnDuplicate, ReplayRule, StoreFailure},
    scheme::Scheme,
};
use std::time::Duration;

/// How long a delivery is remembered whose age nobody judges.
const AGELESS: Duration = Duration::from_secs(24 * 3600);
/// Added to the time in which a delivery passes for fresh: clocks of replicas differ.
const MARGIN: Duration = Duration::from_secs(60);
/// Longest time a delivery is remembered.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a claim waits for its outcome, unless `outcome_timeout` says otherwise.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether and how long claims wait for outcomes.
pub(super) fn outcome_within(
    config: (Option<file::Outcomes>, Option<&str>),
    path: &Path,
    findings: &mut Findings,
) -> Option<Duration> {
    let (outcomes, timeout) = config;
    let place = path.key("outcome_timeout");
    let told = outcomes == Some(file::Outcomes::AccessLog);
    match timeout {
        Some(_) if !told => findings.problem(&place, "is of no use without `outcomes: access_log`"),
        Some(text) => duration(text, &place, findings).filter(|within| {
            let sensible = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(within);
            sensible || findings.problem::<()>(&place, "is not between 1s and 1h").is_some()
        }),
        None => told.then_some(OUTCOME_TIMEOUT),
    }
}

/// The rules of one endpoint.
pub(super) fn rules(
    written: &file::Endpoint,
    retries: Option<file::Retries>,
    scheme: &Scheme,
    outcome_within: Option<Duration>,
    path: &Path,
    findings: &mut Findings,
) -> Option<ReplayRules> {
    let fresh_for = scheme.fresh_for();
    let told_apart = outcome_within.is_some() || retries == Some(file::Retries::SignedAnew);
    let on_duplicate = match written.on_duplicate {
        Some(file::OnDuplicate::Off) => None,
        Some(chosen) if !scheme.signs() => {
            let _: Option<()> = findings.problem(
                &path.key("on_duplicate"),
                format!("is `{}`, but nothing is signed that tells one delivery from another", chosen.as_str()),
            );
            None
        }
        Some(file::OnDuplicate::Deny) => Some(OnDuplicate::Deny),
        Some(file::OnDuplicate::Answer200) => Some(OnDuplicate::Answer200),
        None if !scheme.signs_body() => None,
        None if fresh_for.is_some() && told_apart => Some(OnDuplicate::Deny),
        // What may be a retry is not refused.
        Some(file::OnDuplicate::Mark) | None => Some(OnDuplicate::Mark),
    };
    if !told_apart && matches!(on_duplicate, Some(OnDuplicate::Deny | OnDuplicate::Answer200)) {
        findings.warn(
            &path.key("on_duplicate"),
            "loses the retry of a delivery that the application failed to take, unless the provider signs it anew; `outcomes: access_log` tells them apart",
        );
    }
    for (field, there) in [("remember", written.remember.is_some()), ("store_failure", written.store_failure.is_some())]
    {
        if there && on_duplicate.is_none() {
            findings.problem::<()>(&path.key(field), "is of no use where nothing is guarded; see `on_duplicate`");
        }
    }
    let place = path.key("remember");
    let at_least = fresh_for.map(|fresh| fresh.saturating_add(MARGIN));
    let remember = match written.remember.as_deref() {
        None => at_least.unwrap_or(AGELESS),
        Some(text) => duration(text, &place, findings)?,
    };
    if at_least.is_some_and(|at_least| remember < at_least) {
        return findings.problem(
            &place,
            format!("is shorter than a delivery passes for fresh; write {}s or more", at_least?.as_secs()),
        );
    }
    if remember > LONGEST || remember < Duration::from_secs(1) {
        return findings.problem(&place, "is not between 1s and 30d");
    }
    let told = ReplayRule {
        on_duplicate: on_duplicate?,
        remember,
        outcome_within,
        store_failure: match written.store_failure {
            None | Some(file::StoreFailure::Deny) => StoreFailure::Deny,
            Some(file::StoreFailure::LocalOnly) => StoreFailure::LocalOnly,
        },
    };
    // A proxy that tells nothing cannot tell a retry from a replay; what the owner chose stands all the same.
    let loses_retries = written.on_duplicate.is_none() && retries != Some(file::Retries::SignedAnew);
    let on_duplicate = if loses_retries { OnDuplicate::Mark } else { told.on_duplicate };
    Some(ReplayRules { told, untold: ReplayRule { outcome_within: None, on_duplicate, ..told } })
}
