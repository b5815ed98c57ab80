//! Public keys: read, held to a policy, and turned into parsed verifiers once, at load.
//!
//! A key is bound to the algorithms its scheme is configured with; a message never chooses one. Reading a key is the
//! library crates' job. Verifying is AWS-LC's (whole encoded message for RSA, strict DER or exact P1363 for ECDSA),
//! and for Ed25519 `ed25519-dalek`'s strict verification, which refuses weak keys and non-canonical signatures.

use super::{
    algorithm::{Algorithm, Curve},
    encoding::Encoding,
};
use crate::{clock::UnixSeconds, json::Json};
use aws_lc_rs::signature::{ParsedPublicKey, VerificationAlgorithm};
use rsa::{
    pkcs1::{RsaPublicKeyRef, UintRef},
    pss,
};
use std::fmt;
use x509_cert::{
    Certificate,
    der::{
        Decode, DecodePem, Encode,
        asn1::{Null, ObjectIdentifier},
        pem,
    },
    spki::SubjectPublicKeyInfoRef,
};

/// What keys are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeyPolicy {
    /// RSA from 1024 bits on, instead of 2048.
    pub allow_rsa_1024: bool,
    /// RSA with any odd public exponent from 3 on, instead of 65537.
    pub allow_small_exponent: bool,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyFormat {
    /// PEM: SPKI, or PKCS#1 for RSA.
    Pem,
    /// A PEM certificate.
    X509,
    /// A JSON Web Key (RFC 7517).
    Jwk,
    /// Base64 of a DER SPKI.
    SpkiBase64,
    /// Hex of 32 bytes (Ed25519) or of an uncompressed point.
    RawHex,
    /// Base64 of the same.
    RawBase64,
}

/// A key, ready to verify with the algorithms it was made for.
pub struct PublicKey {
    verifiers: Vec<(Algorithm, Verifier)>,
    /// RSA only: every signature is exactly this long (RFC 8017 §8.2.2 step 1).
    modulus_length: Option<usize>,
}

enum Verifier {
    Lc(ParsedPublicKey),
    /// The library above takes a salt of any length; RFC 7518 §3.5 and RFC 9421 §3.3.1 name one.
    Pss256(Box<pss::VerifyingKey<sha2::Sha256>>),
    Pss384(Box<pss::VerifyingKey<sha2::Sha384>>),
    Pss512(Box<pss::VerifyingKey<sha2::Sha512>>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

/// When a certificate is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: UnixSeconds,
    /// Not after.
    pub until: UnixSeconds,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The text is not of the announced form.
    #[error("is not {0}")]
    Unreadable(&'static str),
    /// The key fits none of the scheme's algorithms.
    #[error("is a key of another kind than the scheme's algorithms take")]
    WrongKind,
    /// The modulus is outside the policy.
    #[error("is an RSA key of {0} bits; between 2048 and 8192 are accepted")]
    ModulusSize(usize),
    /// The exponent is outside the policy.
    #[error("is an RSA key with the public exponent {0}; an odd one of at least 65537 is accepted")]
    Exponent(String),
    /// A modulus of a generator whose keys can be factored.
    #[error("is an RSA key of the ROCA kind (CVE-2017-15361), whose private half can be computed")]
    Roca,
    /// A point for which almost every message has a valid signature.
    #[error("is a weak Ed25519 key; signatures under it prove nothing")]
    WeakEd25519,
    /// A certificate is outside its time.
    #[error("is a certificate that is not valid now (from {from} until {until})")]
    OutsideValidity {
        /// Start, as the certificate says.
        from: String,
        /// End, as the certificate says.
        until: String,
    },
}

const UNREADABLE_PEM: KeyProblem = KeyProblem::Unreadable("a PEM public key");
const UNREADABLE_CERTIFICATE: KeyProblem = KeyProblem::Unreadable("a PEM certificate");
const UNREADABLE_JWK: KeyProblem = KeyProblem::Unreadable("a JSON Web Key of a known kind");
const UNUSABLE_RSA: KeyProblem = KeyProblem::Unreadable("a usable RSA key");

/// Longest modulus, in bytes, with which PKCS #1 v1.5 is cheaper than P-256: 3072 bits. Twice as long a one takes nearly four
/// times as long.
const SHORT_MODULUS: usize = 384;

/// RFC 8410 §3.
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480 §2.1.1.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8017 appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 8017 appendix A.2.3: an RSA key that says it is for PSS alone.
const ID_RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RFC 5480 §2.1.1.1.
const CURVES: [(ObjectIdentifier, Curve); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), Curve::P256),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), Curve::P384),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), Curve::P521),
];

impl PublicKey {
    /// Reads a key of any format but [`KeyFormat::X509`]'s validity, which [`PublicKey::from_certificate`] tells.
    pub fn read(
        text: &str,
        format: KeyFormat,
        algorithms: &[Algorithm],
        policy: KeyPolicy,
    ) -> Result<Self, KeyProblem> {
        let decoded = |encoding: Encoding| encoding.decode(text.trim().as_bytes());
        match format {
            KeyFormat::Pem => Self::from_pem(text, algorithms, policy),
            KeyFormat::X509 => Err(UNREADABLE_CERTIFICATE),
            KeyFormat::Jwk => Self::from_jwk(&Json::parse(text.as_bytes()).ok_or(UNREADABLE_JWK)?, algorithms, policy),
            KeyFormat::SpkiBase64 => {
                let der = decoded(Encoding::Base64).ok_or(KeyProblem::Unreadable("base64 of a DER public key"))?;
                Self::from_spki(&der, algorithms, policy)
            }
            KeyFormat::RawHex => {
                Self::from_raw(&decoded(Encoding::Hex).ok_or(KeyProblem::Unreadable("a key in hex"))?, algorithms)
            }
            KeyFormat::RawBase64 => {
                Self::from_raw(&decoded(Encoding::Base64).ok_or(KeyProblem::Unreadable("a key in base64"))?, algorithms)
            }
        }
    }

    /// Reads `-----BEGIN PUBLIC KEY-----` (SPKI) or `-----BEGIN RSA PUBLIC KEY-----` (PKCS#1). Providers hand out PEM
    /// on one line, or with line ends written as `\n`; both are read.
    pub fn from_pem(text: &str, algorithms: &[Algorithm], policy: KeyPolicy) -> Result<Self, KeyProblem> {
        let from_spki = |der: &[u8]| Self::from_spki(der, algorithms, policy);
        match pem::decode_vec(text.as_bytes()) {
            Ok(("PUBLIC KEY", der)) => from_spki(&der),
            Ok(("RSA PUBLIC KEY", der)) => {
                Self::from_rsa(RsaPublicKeyRef::from_der(&der).map_err(|_| UNREADABLE_PEM)?, algorithms, policy)
            }
            Ok(_) | Err(_) => {
                let text = rewrapped(text).ok_or(UNREADABLE_PEM)?;
                pem::decode_vec(text.as_bytes()).map_or(Err(UNREADABLE_PEM), |(_, der)| from_spki(&der))
            }
        }
    }

    /// Reads the subject key of a PEM certificate that is valid at `now`, and until when it is. Whose certificate it
    /// is, the operator vouches for by configuring it or the host it comes from.
    pub fn from_certificate(
        text: &str,
        now: UnixSeconds,
        algorithms: &[Algorithm],
        policy: KeyPolicy,
    ) -> Result<(Self, Validity), KeyProblem> {
        let certificate = Certificate::from_pem(text).map_err(|_| UNREADABLE_CERTIFICATE)?;
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
        let spki = certificate.subject_public_key_info().to_der().map_err(|_| UNREADABLE_CERTIFICATE)?;
        Ok((Self::from_spki(&spki, algorithms, policy)?, validity))
    }

    /// Reads a DER SPKI (RFC 5280 §4.1.2.7).
    pub fn from_spki(der: &[u8], algorithms: &[Algorithm], policy: KeyPolicy) -> Result<Self, KeyProblem> {
        let unreadable = KeyProblem::Unreadable("a readable public key");
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| unreadable.clone())?;
        let bits = spki.subject_public_key.as_bytes().ok_or_else(|| unreadable.clone())?;
        match spki.algorithm.oid {
            RSA_ENCRYPTION => {
                // RFC 3279 §2.3.1: its parameters are NULL.
                let parameters = spki.algorithm.parameters.and_then(|any| any.decode_as::<Null>().ok());
                parameters.ok_or_else(|| unreadable.clone())?;
                Self::from_rsa(RsaPublicKeyRef::from_der(bits).map_err(|_| unreadable)?, algorithms, policy)
            }
            ID_RSASSA_PSS => {
                let pss: Vec<Algorithm> = algorithms.iter().copied().filter(|a| a.is_pss()).collect();
                Self::from_rsa(RsaPublicKeyRef::from_der(bits).map_err(|_| unreadable)?, &pss, policy)
            }
            ID_EC_PUBLIC_KEY => {
                let named = spki.algorithm.parameters_oid().map_err(|_| unreadable)?;
                let curve = CURVES.iter().find(|(oid, _)| *oid == named).ok_or(KeyProblem::WrongKind)?.1;
                Self::from_point(curve, bits, algorithms)
            }
            ID_ED25519 => Self::from_ed25519(bits, algorithms),
            _ => Err(KeyProblem::WrongKind),
        }
    }

    /// Reads a JSON Web Key. Its `use` and `key_ops` must not forbid verifying, and its `alg`, where it has one, must
    /// be one of the scheme's.
    pub fn from_jwk(jwk: &Json, algorithms: &[Algorithm], policy: KeyPolicy) -> Result<Self, KeyProblem> {
        let text = |name: &str| jwk.text_at(&format!("/{name}"));
        let operations = jwk.at("/key_ops").map(|json| json.items().unwrap_or_default());
        let may_verify = operations.is_none_or(|all| all.iter().any(|operation| operation.text() == Some("verify")));
        if text("use").is_some_and(|r#use| r#use != "sig") || !may_verify {
            return Err(KeyProblem::WrongKind);
        }
        let bytes =
            |name: &str| text(name).and_then(|t| Encoding::Base64Url.decode(t.as_bytes())).ok_or(UNREADABLE_JWK);
        let algorithms: Vec<Algorithm> = match text("alg") {
            None => algorithms.to_vec(),
            Some(alg) => algorithms.iter().copied().filter(|a| a.jws_name() == Some(alg)).collect(),
        };
        match (text("kty"), text("crv")) {
            (Some("RSA"), _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let number = |bytes| UintRef::new(bytes).map_err(|_| UNUSABLE_RSA);
                let key = RsaPublicKeyRef { modulus: number(&n)?, public_exponent: number(&e)? };
                Self::from_rsa(key, &algorithms, policy)
            }
            (Some("EC"), Some(name)) => {
                let curve = match name {
                    "P-256" => Curve::P256,
                    "P-384" => Curve::P384,
                    "P-521" => Curve::P521,
                    _ => return Err(KeyProblem::WrongKind),
                };
                // RFC 7518 §6.2.1.2 wants leading zeros; some providers leave them out.
                let padded = |name| {
                    let bytes = bytes(name)?;
                    let missing = curve.length().checked_sub(bytes.len()).ok_or(UNREADABLE_JWK)?;
                    Ok::<_, KeyProblem>([vec![0; missing], bytes].concat())
                };
                let point = [vec![4], padded("x")?, padded("y")?].concat();
                Self::from_point(curve, &point, &algorithms)
            }
            (Some("OKP"), Some("Ed25519")) => Self::from_ed25519(&bytes("x")?, &algorithms),
            _ => Err(UNREADABLE_JWK),
        }
    }

    fn from_raw(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyProblem> {
        match bytes.len() {
            32 => Self::from_ed25519(bytes, algorithms),
            65 => Self::from_point(Curve::P256, bytes, algorithms),
            97 => Self::from_point(Curve::P384, bytes, algorithms),
            133 => Self::from_point(Curve::P521, bytes, algorithms),
            _ => Err(KeyProblem::Unreadable("a raw key of a known length")),
        }
    }

    fn from_rsa(key: RsaPublicKeyRef<'_>, algorithms: &[Algorithm], policy: KeyPolicy) -> Result<Self, KeyProblem> {
        // Without leading zeros.
        let (n, e) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
        let unused = n.first().map_or(0, |byte| byte.leading_zeros());
        let bits = n.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0));
        let least = if policy.allow_rsa_1024 { 1024 } else { 2048 };
        if !(least..=8192).contains(&bits) {
            return Err(KeyProblem::ModulusSize(bits));
        }
        if has_roca_fingerprint(n) {
            return Err(KeyProblem::Roca);
        }
        let exponent = e.iter().try_fold(0_u64, |e, byte| e.checked_mul(256)?.checked_add(u64::from(*byte)));
        let least = if policy.allow_small_exponent { 3 } else { 65537 };
        match exponent {
            Some(e) if e >= least && !e.is_multiple_of(2) => {}
            Some(e) => return Err(KeyProblem::Exponent(e.to_string())),
            None => return Err(KeyProblem::Exponent("over 64 bits".to_owned())),
        }
        let der = key.to_der().map_err(|_| UNUSABLE_RSA)?;
        // What this library prepares of a key is half of what reading one takes: only where it verifies.
        let number = rsa::BoxedUint::from_be_slice_vartime;
        let pss_key = algorithms
            .iter()
            .any(|algorithm| algorithm.is_pss())
            .then(|| rsa::PublicKey::new_with_size_limits(number(n), number(e), bits..=bits).map_err(|_| UNUSABLE_RSA));
        let pss_key = pss_key.transpose()?;
        let mut verifiers = Vec::new();
        for algorithm in algorithms.iter().copied() {
            let pss = match algorithm {
                Algorithm::RsaPssSha256 => {
                    pss_key.clone().map(|key| Verifier::Pss256(Box::new(pss::VerifyingKey::new(key))))
                }
                Algorithm::RsaPssSha384 => {
                    pss_key.clone().map(|key| Verifier::Pss384(Box::new(pss::VerifyingKey::new(key))))
                }
                Algorithm::RsaPssSha512 => {
                    pss_key.clone().map(|key| Verifier::Pss512(Box::new(pss::VerifyingKey::new(key))))
                }
                Algorithm::RsaPkcs1Sha1
                | Algorithm::RsaPkcs1Sha256
                | Algorithm::RsaPkcs1Sha384
                | Algorithm::RsaPkcs1Sha512
                | Algorithm::EcdsaP256Sha1
                | Algorithm::EcdsaP256Sha256(_)
                | Algorithm::EcdsaP384Sha384(_)
                | Algorithm::EcdsaP521Sha512(_)
                | Algorithm::Ed25519 => None,
            };
            match (pss, algorithm.rsa_pkcs1(bits < 2048)) {
                (Some(verifier), _) => verifiers.push((algorithm, verifier)),
                (None, Some(parameters)) => verifiers.push(parsed(algorithm, parameters, &der)?),
                (None, None) => {}
            }
        }
        Self::of(verifiers, Some(bits.div_ceil(8)))
    }

    fn from_point(curve: Curve, point: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyProblem> {
        let verifiers = algorithms
            .iter()
            .filter_map(|algorithm| Some((*algorithm, algorithm.ecdsa().filter(|(c, _)| *c == curve)?.1)))
            .map(|(algorithm, parameters)| parsed(algorithm, parameters, point))
            .collect::<Result<_, _>>()?;
        Self::of(verifiers, None)
    }

    fn from_ed25519(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyProblem> {
        let unreadable = KeyProblem::Unreadable("an Ed25519 key of 32 bytes");
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| unreadable.clone())?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| unreadable.clone())?;
        if key.is_weak() {
            return Err(KeyProblem::WeakEd25519);
        }
        // A point has one canonical spelling; another one is somebody's trick.
        if key.to_edwards().compress().to_bytes() != bytes {
            return Err(unreadable);
        }
        let wanted = algorithms.contains(&Algorithm::Ed25519);
        let verifiers = wanted.then(|| (Algorithm::Ed25519, Verifier::Ed25519(Box::new(key)))).into_iter().collect();
        Self::of(verifiers, None)
    }

    fn of(verifiers: Vec<(Algorithm, Verifier)>, modulus_length: Option<usize>) -> Result<Self, KeyProblem> {
        if verifiers.is_empty() { Err(KeyProblem::WrongKind) } else { Ok(Self { verifiers, modulus_length }) }
    }

    /// Whether a signature of `length` bytes can be one of this key's at all.
    #[must_use]
    pub fn takes_length(&self, length: usize) -> bool {
        self.modulus_length.is_none_or(|modulus| modulus == length)
    }

    /// Whether the key takes an algorithm.
    #[must_use]
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(other, _)| *other == algorithm)
    }

    /// Whether to verify by it takes long, by any of its algorithms.
    #[must_use]
    pub fn takes_long(&self) -> bool {
        self.modulus_length.is_some_and(|length| length > SHORT_MODULUS)
            || self.verifiers.iter().any(|(algorithm, _)| algorithm.takes_long())
    }

    /// Whether `signature` is this key's over `content`, by `algorithm` and no other.
    #[must_use]
    pub fn made(&self, algorithm: Algorithm, content: &[u8], signature: &[u8]) -> bool {
        let Some((_, verifier)) = self.verifiers.iter().find(|(other, _)| *other == algorithm) else { return false };
        match verifier {
            Verifier::Pss256(key) => self.takes_length(signature.len()) && is_pss(&**key, content, signature),
            Verifier::Pss384(key) => self.takes_length(signature.len()) && is_pss(&**key, content, signature),
            Verifier::Pss512(key) => self.takes_length(signature.len()) && is_pss(&**key, content, signature),
            Verifier::Lc(key) => self.takes_length(signature.len()) && key.verify_sig(content, signature).is_ok(),
            Verifier::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(content, &signature).is_ok()),
        }
    }
}

/// Whether a modulus is a power of 65537 modulo every small prime, as those of CVE-2017-15361 are (Nemec et al., "The
/// Return of Coppersmith's Attack", §2.2). Another modulus is so by chance about once in 2^27.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    let rest_of = |number: u32, prime: u32| number.checked_rem(prime).unwrap_or(0);
    PRIMES.iter().all(|prime| {
        // Primes are small: no product here reaches 2^16.
        let times = |a: u32, b: u32| rest_of(a.wrapping_mul(b), *prime);
        let shift_in = |rest: u32, byte: &u8| rest_of(times(rest, 256).wrapping_add(u32::from(*byte)), *prime);
        let rest = modulus.iter().fold(0, shift_in);
        let powers = std::iter::successors(Some(1), |power| Some(times(*power, rest_of(65537, *prime))));
        powers.take(usize::try_from(*prime).unwrap_or(0)).any(|power| power == rest)
    })
}

fn is_pss(key: &impl rsa::signature::Verifier<pss::Signature>, content: &[u8], signature: &[u8]) -> bool {
    pss::Signature::try_from(signature).is_ok_and(|signature| key.verify(content, &signature).is_ok())
}

fn parsed(
    algorithm: Algorithm,
    parameters: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<(Algorithm, Verifier), KeyProblem> {
    ParsedPublicKey::new(parameters, bytes)
        .map(|key| (algorithm, Verifier::Lc(key)))
        .map_err(|_| KeyProblem::Unreadable("a usable key"))
}

/// PEM that somebody put on one line, with its line ends back.
fn rewrapped(text: &str) -> Option<String> {
    let text = text.replace("\\n", "\n");
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (base64, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let base64: Vec<char> = base64.chars().filter(|c| !c.is_whitespace()).collect();
    let lines: Vec<String> = base64.chunks(64).map(|line| line.iter().collect()).collect();
    Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.verifiers.iter().map(|(algorithm, _)| algorithm)).finish()
    }
}
