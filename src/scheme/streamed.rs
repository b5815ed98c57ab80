//! A signature over a body that is verified as it comes in, and never held.
//!
//! Possible where the body stands last in what is signed and nothing else of the scheme looks into it. What can be judged
//! without the body is judged first: a request without a signature, or with a malformed one, costs no hash. Each active
//! secret has its own running MAC, for which of them it was is only known at the end.

use super::{Proof, mac::MacState, signature::Candidates, timestamp::Tolerance};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    replay::Digesting,
    secret::Label,
};
use std::sync::Arc;

/// A verification under way.
#[derive(Debug)]
pub struct Streamed {
    pub(super) candidates: Candidates,
    pub(super) macs: Vec<(Arc<Label>, MacState)>,
    /// What identifies the delivery, where anybody wants to know.
    pub(super) digest: Option<Digesting>,
    /// When it was signed, and how far from now that may be.
    pub(super) signed_at: Option<(UnixSeconds, Tolerance)>,
}

impl Streamed {
    /// Takes in the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        for (_, mac) in &mut self.macs {
            mac.update(piece);
        }
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
    }

    /// What it comes to, now that the body is whole.
    pub fn finish(self, now: Now) -> Result<Proof, Denial> {
        let Self { candidates, macs, digest, signed_at } = self;
        let whose = macs.into_iter().find(|(_, mac)| mac.clone().tag().is_one_of(&candidates));
        let (label, _) = whose.ok_or(Rejection::SignatureMismatch)?;
        // After the signature, as everywhere: what is said of the time is said of an authentic delivery.
        if let Some((moment, tolerance)) = signed_at {
            tolerance.judge(moment, now)?;
        }
        Ok(Proof { label, signed: digest.map(Digesting::finish), signed_at: signed_at.map(|(moment, _)| moment) })
    }
}
