//! What a check can come to, and the stable spelling of every reason.
//!
//! A [`Decision`] has no default. `Allow` holds a proof that only the rooms behind it can make: an
//! [`Admitted`], or an [`Observed`] in the one mode that lets a rejected delivery through. Everything that is not
//! an allow is either an [`Answer`] to a handshake or a [`Denial`]: a [`Rejection`] (the sender is not proven) or
//! a [`Fault`] (we could not tell). Both deny.
//!
//! The spelling of a reason is the same in the log, the metric label, the dynamic metadata and the CLI;
//! changing one is a breaking change.

use crate::{admission::Admitted, check::Observed};

/// The outcome of one check.
#[derive(Debug)]
pub enum Decision {
    /// Forward to the upstream.
    Allow(Allowed),
    /// Reply to the provider; the upstream never sees the request.
    Answer(Answer),
    /// Refuse.
    Deny(Denial),
}

/// Why a delivery may pass: one of two proofs, neither of which can be made outside its room.
#[derive(Debug)]
pub enum Allowed {
    /// Verified and admitted.
    Admitted(Admitted),
    /// Rejected, but the endpoint only observes.
    Observed(Observed),
}

/// A reply made by hookwarden itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which kind of handshake was answered.
    pub reason: AnswerReason,
    /// What is sent.
    pub reply: Reply,
}

/// A complete HTTP reply. Values are from a closed character set by construction: configuration text checked at
/// load, and echoes checked by their rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// HTTP status, 200–599.
    pub status: u16,
    /// Header lines in order.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: String,
}

/// The kinds of handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerReason {
    /// A challenge rule matched.
    Challenge,
    /// A verify token was right and the client's address got a lease.
    LeaseGranted,
    /// The provider handed over a secret in the window that was open for it.
    SecretEnrolled,
    /// The delivery was there before, and the endpoint answers for the upstream then.
    Duplicate,
}

/// A refusal, by blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The sender is not proven.
    Rejection(Rejection),
    /// We, or something we depend on, could not tell.
    Fault(Fault),
}

impl From<Rejection> for Denial {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl From<Fault> for Denial {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One row per reason: variant, spelling, HTTP status, how far the delivery got (for choosing the most telling
/// of several failures), and the sentence the documentation prints.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident $spelling:literal $status:literal $rank:literal $sentence:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $sentence] $variant,)+
        }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $spelling,)+ }
            }

            /// The HTTP status the sender gets unless the endpoint's `on_rejection` says otherwise.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// How far the delivery got before it failed; of several failures the highest is reported.
            #[must_use]
            pub const fn rank(self) -> u8 {
                match self { $(Self::$variant => $rank,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

reasons! {
    /// The sender is not proven. Closed, `Copy`, and without any text the sender wrote.
    Rejection {
        UnknownEndpoint "unknown_endpoint" 404 0 "No endpoint of the configuration receives this request.",
        MethodNotAllowed "method_not_allowed" 405 0 "The endpoint does not take this method.",
        UpgradeRefused "upgrade_refused" 400 0 "The request asks for a protocol upgrade, whose body would pass unseen.",
        RequestMalformed "request_malformed" 400 0 "The check is not a well-formed HTTP request.",
        PathAmbiguous "path_ambiguous" 400 0 "The path can be read in more than one way: `//`, dot segments, escaped slashes, `;`, `#` or control characters.",
        HeadersAmbiguous "headers_ambiguous" 400 0 "The proxy sent two header lists that disagree.",
        BodyTruncated "body_truncated" 413 0 "Only part of the body arrived; raise the proxy's body limit or this is an oversized delivery.",
        BodyTooLarge "body_too_large" 413 0 "The body is over the endpoint's `body_limit`.",
        BodyMissing "body_missing" 400 0 "The request has a body but the proxy did not send it; set `with_request_body` on the filter.",
        BodyNotBytes "body_not_bytes" 400 0 "The body came as text, which may be altered; set `pack_as_bytes: true` on the filter, or `text_body: true` here.",
        BodyAltered "body_altered" 400 0 "The body came as text and may not be the bytes: its length differs, or it has a `!`, which Envoy puts for every byte that is not UTF-8.",
        BodyTimeout "body_timeout" 408 0 "The body did not come in time.",
        TrustedHeaderSent "trusted_header_sent" 400 0 "The request has a header that only hookwarden may set, and its proxy would forward it.",
        SignatureMissing "signature_missing" 401 1 "No signature of the configured kind.",
        SignatureRepeated "signature_repeated" 401 2 "The signature header occurs more than once.",
        SignatureMalformed "signature_malformed" 401 3 "The signature is not in the documented form.",
        SignatureMismatch "signature_mismatch" 401 7 "No active secret or key made this signature over this request.",
        TimestampMissing "timestamp_missing" 401 3 "The signed timestamp is absent.",
        TimestampRepeated "timestamp_repeated" 401 3 "The signed timestamp occurs more than once.",
        TimestampMalformed "timestamp_malformed" 401 4 "The signed timestamp is not in canonical form.",
        TimestampTooOld "timestamp_too_old" 401 9 "Authentic, but signed longer ago than the tolerance.",
        TimestampTooNew "timestamp_too_new" 401 9 "Authentic, but signed further in the future than the tolerance.",
        HeaderMissing "header_missing" 401 3 "A header that is part of the signed content is absent.",
        HeaderRepeated "header_repeated" 401 3 "A header that is part of the signed content occurs more than once.",
        HeaderMalformed "header_malformed" 401 4 "A header that is part of the signed content holds what would make that content ambiguous.",
        ValueMissing "value_missing" 401 3 "A query parameter or form field that is part of the signed content is absent.",
        ValueRepeated "value_repeated" 401 3 "A query parameter or form field that is part of the signed content occurs more than once.",
        ValueMalformed "value_malformed" 401 4 "A value that is part of the signed content holds what would make that content ambiguous, or is not text.",
        BodyMalformed "body_malformed" 401 4 "The body is not the JSON or form of which the scheme signs parts, or is too long to be read as one.",
        SignatureObtainable "signature_obtainable" 401 8 "The signature is right, but the endpoint's handshake computes it for anybody who asks. A real delivery has another form.",
        KindNotAccepted "kind_not_accepted" 401 1 "None of the endpoint's cases is for a message of this kind.",
        TokenMissing "token_missing" 401 1 "No token.",
        TokenRepeated "token_repeated" 401 2 "The token occurs more than once.",
        TokenMismatch "token_mismatch" 401 7 "The token is not one of the endpoint's secrets.",
        CredentialsMissing "credentials_missing" 401 1 "No Basic credentials.",
        CredentialsMalformed "credentials_malformed" 401 3 "The Authorization header is not well-formed Basic credentials.",
        CredentialsMismatch "credentials_mismatch" 401 7 "The credentials are not one of the endpoint's secrets.",
        TooManyGuesses "too_many_guesses" 429 9 "The client's address sent too many wrong tokens or passwords this minute, and is not heard, right or wrong.",
        LeaseMissing "lease_missing" 401 1 "The client's address holds no lease.",
        LeaseExpired "lease_expired" 401 2 "The client's address held a lease that is over; said once.",
        LeaseAddressRefused "lease_address_refused" 401 8 "The token is right, but this kind of address gets no lease.",
        AlgorithmNotAllowed "algorithm_not_allowed" 401 4 "The message names an algorithm the endpoint does not accept.",
        KeyIdMissing "key_id_missing" 401 4 "The message does not name its key, and the endpoint has several or none that is configured.",
        KeyIdUnknown "key_id_unknown" 401 6 "The message names a key the endpoint does not have.",
        ComponentNotCovered "component_not_covered" 401 5 "The signature leaves out a component the endpoint requires.",
        ComponentNotAllowed "component_not_allowed" 401 4 "The signature covers a component that its algorithm may not.",
        DigestMissing "digest_missing" 401 7 "No Digest header with an accepted algorithm.",
        DigestMalformed "digest_malformed" 401 7 "The Digest header is not in the documented form.",
        DigestMismatch "digest_mismatch" 401 8 "The signature is right, but the Digest is not the body's.",
        ClaimMissing "claim_missing" 401 8 "The token is right, but lacks a claim that the endpoint requires.",
        ClaimMismatch "claim_mismatch" 401 8 "The token is right, but a claim is not what the endpoint requires.",
        CertificateUntrusted "certificate_untrusted" 401 5 "The message's certificates do not lead to a configured authority.",
        AddressNotAllowed "address_not_allowed" 401 2 "The client's address is in none of the endpoint's networks.",
        Replayed "replayed" 409 9 "Authentic, but the same signed bytes were there before: a replay, or a retry of what was already delivered.",
        EnrolmentClosed "enrolment_closed" 401 1 "A secret was handed over, but the endpoint's `enrolment` window is not open, or it has learned another one.",
        ChallengeMalformed "challenge_malformed" 400 1 "The challenge value is absent, too long, or holds characters that are never echoed.",
        ChallengeMismatch "challenge_mismatch" 400 1 "The challenge value differs between the places that must agree.",
    }
}

reasons! {
    /// We could not tell. Always a denial with status 503, so that the provider retries.
    Fault {
        StoreUnavailable "store_unavailable" 503 0 "The state store did not answer.",
        StoreIncomplete "store_incomplete" 503 0 "The state store began, or forgot, after this delivery was signed; it may be a replay.",
        StoreFull "store_full" 503 0 "The state store holds as many entries as it may.",
        OutcomePending "outcome_pending" 503 0 "The same delivery is at the upstream already, and its outcome is not known yet.",
        KeyNotLoaded "key_not_loaded" 503 0 "The message names a published key that has not been fetched yet; the provider's next try finds it.",
        NoActiveSecret "no_active_secret" 503 0 "No secret or key of the endpoint is within its `from` and `until`.",
        ClientAddressUnknown "client_address_unknown" 503 0 "The proxy did not tell the client's address as configured.",
        DeadlineExceeded "deadline_exceeded" 503 0 "The check took longer than `limits.deadline`.",
        Overloaded "overloaded" 503 0 "The bodies in flight exceed `limits.bodies_in_flight`.",
        Internal "internal" 503 0 "A defect in hookwarden; the log says where.",
    }
}

/// The spelling of an allow's reason.
pub const VERIFIED: &str = "verified";

impl AnswerReason {
    /// Every variant.
    pub const ALL: &'static [Self] = &[Self::Challenge, Self::LeaseGranted, Self::SecretEnrolled, Self::Duplicate];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::LeaseGranted => "lease_granted",
            Self::SecretEnrolled => "secret_enrolled",
            Self::Duplicate => "duplicate",
        }
    }
}

impl Denial {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejection(rejection) => rejection.as_str(),
            Self::Fault(fault) => fault.as_str(),
        }
    }

    /// Of two failures, the more telling one: a fault before any rejection, then the one that got further.
    #[must_use]
    pub fn more_telling(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rejection(a), Self::Rejection(b)) if b.rank() > a.rank() => other,
            (Self::Rejection(_), Self::Fault(_)) => other,
            (Self::Rejection(_), Self::Rejection(_)) | (Self::Fault(_), _) => self,
        }
    }
}

impl Decision {
    /// The decision's stable spelling, as in metrics and metadata.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Allow(Allowed::Admitted(_)) => "allow",
            Self::Allow(Allowed::Observed(_)) => "observe",
            Self::Answer(_) => "answer",
            Self::Deny(_) => "deny",
        }
    }

    /// The reason's stable spelling.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Allow(Allowed::Admitted(_)) => VERIFIED,
            Self::Allow(Allowed::Observed(observed)) => observed.rejection().as_str(),
            Self::Answer(answer) => answer.reason.as_str(),
            Self::Deny(denial) => denial.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn spellings_are_unique_snake_case() {
        let all: Vec<&str> = Rejection::ALL
            .iter()
            .map(|r| r.as_str())
            .chain(Fault::ALL.iter().map(|f| f.as_str()))
            .chain(AnswerReason::ALL.iter().map(|a| a.as_str()))
            .chain([VERIFIED])
            .collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn every_fault_is_retryable() {
        assert!(Fault::ALL.iter().all(|fault| fault.status() == 503));
    }
}
