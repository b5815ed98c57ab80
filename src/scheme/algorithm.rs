//! Signature algorithms: the closed set, their names on the wire, and what verifies them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA1_ASN1, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_FIXED,
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};

/// Signature algorithms. Each names everything: key type, padding or curve, and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-1. For senders that know nothing else.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256, salt as long as the hash.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, salt as long as the hash.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, salt as long as the hash.
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-1. For senders that know nothing else; always DER.
    EcdsaP256Sha1,
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256(EcdsaForm),
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384(EcdsaForm),
    /// ECDSA on P-521 with SHA-512.
    EcdsaP521Sha512(EcdsaForm),
    /// Ed25519 (RFC 8032), pure.
    Ed25519,
}

/// How an ECDSA signature is written. Never guessed: two readers of one text are two truths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EcdsaForm {
    /// A DER sequence of two integers.
    Der,
    /// The two integers behind each other, padded to the curve's length (IEEE P1363).
    P1363,
}

/// The curves of ECDSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Length of a coordinate in bytes.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Algorithm {
    /// What verifies PKCS#1 v1.5 for an RSA key; nothing where it is another algorithm, or takes no key this short.
    pub(super) fn rsa_pkcs1(self, under_2048_bits: bool) -> Option<&'static dyn VerificationAlgorithm> {
        match (self, under_2048_bits) {
            (Self::RsaPkcs1Sha1, false) => Some(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (Self::RsaPkcs1Sha256, false) => Some(&RSA_PKCS1_2048_8192_SHA256),
            (Self::RsaPkcs1Sha384, false) => Some(&RSA_PKCS1_2048_8192_SHA384),
            (Self::RsaPkcs1Sha512, false) => Some(&RSA_PKCS1_2048_8192_SHA512),
            (Self::RsaPkcs1Sha1, true) => Some(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (Self::RsaPkcs1Sha256, true) => Some(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            (Self::RsaPkcs1Sha512, true) => Some(&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            (Self::RsaPkcs1Sha384, true)
            | (
                Self::RsaPssSha256
                | Self::RsaPssSha384
                | Self::RsaPssSha512
                | Self::EcdsaP256Sha1
                | Self::EcdsaP256Sha256(_)
                | Self::EcdsaP384Sha384(_)
                | Self::EcdsaP521Sha512(_)
                | Self::Ed25519,
                _,
            ) => None,
        }
    }

    /// Its curve and what verifies it; nothing where it takes another kind of key.
    pub(super) fn ecdsa(self) -> Option<(Curve, &'static dyn VerificationAlgorithm)> {
        use EcdsaForm::{Der, P1363};
        match self {
            Self::EcdsaP256Sha1 => Some((Curve::P256, &ECDSA_P256_SHA1_ASN1)),
            Self::EcdsaP256Sha256(Der) => Some((Curve::P256, &ECDSA_P256_SHA256_ASN1)),
            Self::EcdsaP256Sha256(P1363) => Some((Curve::P256, &ECDSA_P256_SHA256_FIXED)),
            Self::EcdsaP384Sha384(Der) => Some((Curve::P384, &ECDSA_P384_SHA384_ASN1)),
            Self::EcdsaP384Sha384(P1363) => Some((Curve::P384, &ECDSA_P384_SHA384_FIXED)),
            Self::EcdsaP521Sha512(Der) => Some((Curve::P521, &ECDSA_P521_SHA512_ASN1)),
            Self::EcdsaP521Sha512(P1363) => Some((Curve::P521, &ECDSA_P521_SHA512_FIXED)),
            Self::RsaPkcs1Sha1
            | Self::RsaPkcs1Sha256
            | Self::RsaPkcs1Sha384
            | Self::RsaPkcs1Sha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::RsaPssSha512
            | Self::Ed25519 => None,
        }
    }

    /// Whether to verify takes longer than to go to another thread and back, several times over, whatever the key is. RSA
    /// PKCS #1 v1.5 of 2048 bits, P-256 and Ed25519 take 20 to 70 microseconds and do not. PSS does with any key: it is portable
    /// code, since the library that has the others takes a salt of any length, and takes 200 microseconds with 2048 bits. What
    /// else a key's length decides, [`PublicKey::takes_long`](super::public_key::PublicKey::takes_long) knows.
    #[must_use]
    pub fn takes_long(self) -> bool {
        self.is_pss() || matches!(self, Self::EcdsaP384Sha384(_) | Self::EcdsaP521Sha512(_))
    }

    /// Whether it is RSASSA-PSS.
    #[must_use]
    pub const fn is_pss(self) -> bool {
        matches!(self, Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512)
    }

    /// Its name in JWS (RFC 7518 §3.1, RFC 8037 §3.1), where it has one.
    #[must_use]
    pub const fn jws_name(self) -> Option<&'static str> {
        match self {
            Self::RsaPkcs1Sha256 => Some("RS256"),
            Self::RsaPkcs1Sha384 => Some("RS384"),
            Self::RsaPkcs1Sha512 => Some("RS512"),
            Self::RsaPssSha256 => Some("PS256"),
            Self::RsaPssSha384 => Some("PS384"),
            Self::RsaPssSha512 => Some("PS512"),
            Self::EcdsaP256Sha256(EcdsaForm::P1363) => Some("ES256"),
            Self::EcdsaP384Sha384(EcdsaForm::P1363) => Some("ES384"),
            Self::EcdsaP521Sha512(EcdsaForm::P1363) => Some("ES512"),
            Self::Ed25519 => Some("EdDSA"),
            Self::RsaPkcs1Sha1
            | Self::EcdsaP256Sha1
            | Self::EcdsaP256Sha256(EcdsaForm::Der)
            | Self::EcdsaP384Sha384(EcdsaForm::Der)
            | Self::EcdsaP521Sha512(EcdsaForm::Der) => None,
        }
    }

    /// Its name in HTTP Message Signatures (RFC 9421 §3.3), where it has one.
    #[must_use]
    pub const fn rfc9421_name(self) -> Option<&'static str> {
        match self {
            Self::RsaPkcs1Sha256 => Some("rsa-v1_5-sha256"),
            Self::RsaPssSha512 => Some("rsa-pss-sha512"),
            Self::EcdsaP256Sha256(EcdsaForm::P1363) => Some("ecdsa-p256-sha256"),
            Self::EcdsaP384Sha384(EcdsaForm::P1363) => Some("ecdsa-p384-sha384"),
            Self::Ed25519 => Some("ed25519"),
            Self::RsaPkcs1Sha1
            | Self::RsaPkcs1Sha384
            | Self::RsaPkcs1Sha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::EcdsaP256Sha1
            | Self::EcdsaP256Sha256(EcdsaForm::Der)
            | Self::EcdsaP384Sha384(EcdsaForm::Der)
            | Self::EcdsaP521Sha512(_) => None,
        }
    }
}
