//! A certificate chain inside a message (`x5c`, RFC 7515 §4.1.6), which ends at a configured authority.
//!
//! The message brings the leaf and what is between; the authority itself is only ever the configured one. Signatures,
//! names, validity and basic constraints are checked up to it, and the marks that say what a certificate is for.

use super::{
    algorithm::Algorithm,
    encoding::Encoding,
    public_key::{KeyPolicy, PublicKey},
};
use crate::{
    clock::{Now, UnixSeconds},
    decision::{Denial, Rejection},
    json::Json,
    secret::{Key, Label},
};
use std::sync::Arc;
use x509_cert::{
    Certificate,
    der::{Decode, Encode, asn1::ObjectIdentifier},
    ext::pkix::BasicConstraints,
};

/// The authorities, and what certificates must look like.
#[derive(Debug)]
pub struct CertificateChain {
    /// The certificates of the authorities, in DER.
    pub roots: Vec<Key<Certificate>>,
    /// An extension that the leaf must carry.
    pub leaf_mark: Option<ObjectIdentifier>,
    /// An extension that the certificate above the leaf must carry.
    pub intermediate_mark: Option<ObjectIdentifier>,
}

/// Algorithms that authorities sign certificates with.
const SIGNED_BY: &[(&str, Algorithm)] = &[
    ("1.2.840.10045.4.3.2", Algorithm::EcdsaP256Sha256(super::algorithm::EcdsaForm::Der)),
    ("1.2.840.10045.4.3.3", Algorithm::EcdsaP384Sha384(super::algorithm::EcdsaForm::Der)),
    ("1.2.840.113549.1.1.11", Algorithm::RsaPkcs1Sha256),
    ("1.2.840.113549.1.1.12", Algorithm::RsaPkcs1Sha384),
    ("1.2.840.113549.1.1.13", Algorithm::RsaPkcs1Sha512),
];

impl CertificateChain {
    /// The leaf's key, and the label of the authority that vouches for it.
    pub fn leaf(&self, header: &Json, algorithm: Algorithm, now: Now) -> Result<(PublicKey, Arc<Label>), Denial> {
        let untrusted = Rejection::CertificateUntrusted;
        let Some(Json::Array(written)) = header.at("/x5c") else { return Err(Rejection::SignatureMalformed.into()) };
        let read = |json: &Json| Certificate::from_der(&Encoding::Base64.decode(json.text()?.as_bytes())?).ok();
        let chain: Vec<Certificate> =
            written.iter().map(read).collect::<Option<_>>().ok_or(Rejection::SignatureMalformed)?;
        // Leaf, intermediate, and the root that providers send along and that proves nothing.
        let [leaf, intermediate, root] = chain.as_slice() else { return Err(untrusted.into()) };
        let trusted =
            self.roots.iter().filter(|key| key.is_active(now)).find(|key| key.value == *root).ok_or(untrusted)?;
        let holds = [leaf, intermediate, root].iter().all(|certificate| is_valid_at(certificate, now.wall))
            && is_authority(intermediate)
            && is_authority(root)
            && carries(leaf, self.leaf_mark)
            && carries(intermediate, self.intermediate_mark)
            && issued(root, intermediate)
            && issued(intermediate, leaf);
        if !holds {
            return Err(untrusted.into());
        }
        let key = subject_key(leaf, &[algorithm]).ok_or(untrusted)?;
        Ok((key, Arc::clone(&trusted.label)))
    }
}

fn subject_key(certificate: &Certificate, algorithms: &[Algorithm]) -> Option<PublicKey> {
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    PublicKey::from_spki(&spki, algorithms, KeyPolicy::default()).ok()
}

fn is_valid_at(certificate: &Certificate, now: UnixSeconds) -> bool {
    let validity = certificate.tbs_certificate().validity();
    let moment = |time: &x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    (moment(&validity.not_before)..=moment(&validity.not_after)).contains(&now.0)
}

fn is_authority(certificate: &Certificate) -> bool {
    let constraints = certificate.tbs_certificate().get_extension::<BasicConstraints>();
    constraints.is_ok_and(|constraints| constraints.is_some_and(|(_, constraints)| constraints.ca))
}

fn carries(certificate: &Certificate, mark: Option<ObjectIdentifier>) -> bool {
    let Some(mark) = mark else { return true };
    let extensions = certificate.tbs_certificate().extensions();
    extensions.is_some_and(|extensions| extensions.iter().any(|extension| extension.extn_id == mark))
}

fn issued(above: &Certificate, below: &Certificate) -> bool {
    let oid = below.signature_algorithm().oid.to_string();
    let Some((_, algorithm)) = SIGNED_BY.iter().find(|(other, _)| *other == oid) else { return false };
    let tbs = below.tbs_certificate();
    let (Ok(content), Some(signature)) = (tbs.to_der(), below.signature().as_bytes()) else { return false };
    above.tbs_certificate().subject() == tbs.issuer()
        && subject_key(above, &[*algorithm]).is_some_and(|key| key.made(*algorithm, &content, signature))
}
