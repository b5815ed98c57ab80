//! RSA public keys: read, held to a policy, and turned into a parsed verifier once, at load.
//!
//! Reading and judging a key is the `rsa` crate's job; verifying is AWS-LC's, which compares the whole encoded
//! message (so neither Bleichenbacher's 2006 forgery nor lax padding gets through) and costs a quarter of the time.

use crate::clock::UnixSeconds;
use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
};
use rsa::{
    PublicKey,
    pkcs1::DecodeRsaPublicKey,
    pkcs8::{DecodePublicKey, EncodePublicKey},
    traits::PublicKeyParts,
};
use std::fmt;
use x509_cert::{
    Certificate,
    der::{DecodePem, Encode},
};

/// An RSA key that may verify PKCS#1 v1.5 signatures.
pub struct RsaKey {
    sha256: ParsedPublicKey,
    sha512: ParsedPublicKey,
    modulus_length: usize,
}

/// When a certificate is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: UnixSeconds,
    /// Not after.
    pub until: UnixSeconds,
}

/// The hash inside a PKCS#1 v1.5 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The text is not of the announced form.
    #[error("is not {0}")]
    Unreadable(&'static str),
    /// The modulus is outside the policy.
    #[error("is an RSA key of {0} bits; between 2048 and 8192 are accepted")]
    ModulusSize(usize),
    /// The exponent is outside the policy.
    #[error("is an RSA key with the public exponent {0}; an odd one of at least 65537 is accepted")]
    Exponent(String),
    /// A certificate is outside its time.
    #[error("is a certificate that is not valid now (from {from} until {until})")]
    OutsideValidity {
        /// Start, as the certificate says.
        from: String,
        /// End, as the certificate says.
        until: String,
    },
}

impl RsaKey {
    /// Reads `-----BEGIN PUBLIC KEY-----` (SPKI) or `-----BEGIN RSA PUBLIC KEY-----` (PKCS#1).
    pub fn from_pem(text: &str, allow_1024: bool) -> Result<Self, KeyProblem> {
        let key = PublicKey::from_public_key_pem(text)
            .or_else(|_| PublicKey::from_pkcs1_pem(text))
            .map_err(|_| KeyProblem::Unreadable("a PEM public key with an RSA key"))?;
        Self::from_key(&key, allow_1024)
    }

    /// Reads the subject key of a PEM certificate that is valid at `now`, and until when it is. Whose
    /// certificate it is, the operator vouches for by configuring it.
    pub fn from_certificate(text: &str, now: UnixSeconds, allow_1024: bool) -> Result<(Self, Validity), KeyProblem> {
        let unreadable = KeyProblem::Unreadable("a PEM certificate with an RSA key");
        let certificate = Certificate::from_pem(text).map_err(|_| unreadable.clone())?;
        let certificate = certificate.tbs_certificate();
        let told = certificate.validity();
        let moment = |time: &x509_cert::time::Time| {
            UnixSeconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        let validity = Validity { from: moment(&told.not_before), until: moment(&told.not_after) };
        if now < validity.from || validity.until < now {
            return Err(KeyProblem::OutsideValidity {
                from: told.not_before.to_string(),
                until: told.not_after.to_string(),
            });
        }
        let spki = certificate.subject_public_key_info().to_der().map_err(|_| unreadable.clone())?;
        let key = PublicKey::from_public_key_der(&spki).map_err(|_| unreadable)?;
        Ok((Self::from_key(&key, allow_1024)?, validity))
    }

    fn from_key(key: &PublicKey, allow_1024: bool) -> Result<Self, KeyProblem> {
        let bits = usize::try_from(key.n().bit_width()).unwrap_or(usize::MAX);
        let least = if allow_1024 { 1024 } else { 2048 };
        if !(least..=8192).contains(&bits) {
            return Err(KeyProblem::ModulusSize(bits));
        }
        let exponent = key
            .e()
            .to_be_bytes_trimmed_vartime()
            .iter()
            .try_fold(0_u64, |e, byte| e.checked_mul(256)?.checked_add(u64::from(*byte)));
        match exponent {
            Some(e) if e >= 65537 && !e.is_multiple_of(2) => {}
            Some(e) => return Err(KeyProblem::Exponent(e.to_string())),
            None => return Err(KeyProblem::Exponent("over 64 bits".to_owned())),
        }
        let parse = |parameters: &'static RsaParameters| {
            let spki = key.to_public_key_der().map_err(|_| KeyProblem::Unreadable("a usable RSA key"))?;
            ParsedPublicKey::new(parameters, spki.as_bytes()).map_err(|_| KeyProblem::Unreadable("a usable RSA key"))
        };
        Ok(Self {
            sha256: parse(if allow_1024 {
                &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY
            } else {
                &RSA_PKCS1_2048_8192_SHA256
            })?,
            sha512: parse(if allow_1024 {
                &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY
            } else {
                &RSA_PKCS1_2048_8192_SHA512
            })?,
            modulus_length: bits.div_ceil(8),
        })
    }

    /// Length of a signature in bytes: always the modulus' length (RFC 8017 §8.2.2 step 1).
    #[must_use]
    pub fn signature_length(&self) -> usize {
        self.modulus_length
    }

    /// Whether `signature` is this key's RSASSA-PKCS1-v1_5 signature over `content`.
    #[must_use]
    pub fn made(&self, hash: RsaHash, content: &[u8], signature: &[u8]) -> bool {
        let key = match hash {
            RsaHash::Sha256 => &self.sha256,
            RsaHash::Sha512 => &self.sha512,
        };
        signature.len() == self.modulus_length && key.verify_sig(content, signature).is_ok()
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({} bytes)", self.modulus_length)
    }
}
