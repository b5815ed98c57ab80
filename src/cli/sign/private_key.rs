//! A private key, for making requests that verify. The service itself holds none.

use crate::scheme::{
    algorithm::{Algorithm, EcdsaForm},
    encoding::Encoding,
};
use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{self as lc, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair},
};
use rsa::{
    pkcs1::DecodeRsaPrivateKey as _,
    pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding},
    signature::{RandomizedSigner as _, SignatureEncoding as _},
};
use std::path::Path;

/// A private key of a known kind.
pub(super) enum PrivateKey {
    Rsa(Box<rsa::PrivateKey>),
    Ed25519(Box<Ed25519KeyPair>),
    /// PKCS#8, by the curve's length in bits.
    Ecdsa(u16, Vec<u8>),
}

impl PrivateKey {
    /// Reads a PEM file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        if let Ok(key) = rsa::PrivateKey::from_pkcs8_pem(&text).or_else(|_| rsa::PrivateKey::from_pkcs1_pem(&text)) {
            return Ok(Self::Rsa(Box::new(key)));
        }
        let (_, der) = x509_cert::der::pem::decode_vec(text.as_bytes())
            .map_err(|_| anyhow!("`{}` is not a PEM private key", path.display()))?;
        // OpenSSL writes the private half alone (RFC 5958 version 1).
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            return Ok(Self::Ed25519(Box::new(key)));
        }
        for bits in [256, 384, 521] {
            if EcdsaKeyPair::from_pkcs8(of_curve(bits, EcdsaForm::Der), &der).is_ok() {
                return Ok(Self::Ecdsa(bits, der));
            }
        }
        bail!("`{}` is not an RSA, ECDSA or Ed25519 key in PKCS#8", path.display())
    }

    /// Its public half, as SPKI in PEM.
    pub(super) fn public_pem(&self) -> anyhow::Result<String> {
        match self {
            Self::Rsa(key) => Ok(key.to_public_key().to_public_key_pem(LineEnding::LF)?),
            Self::Ed25519(key) => {
                // RFC 8410 §4: the 32 bytes behind a constant.
                let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
                Ok(pem(&[&prefix[..], key.public_key().as_ref()].concat()))
            }
            Self::Ecdsa(bits, der) => {
                use aws_lc_rs::encoding::AsDer as _;
                let pair = EcdsaKeyPair::from_pkcs8(of_curve(*bits, EcdsaForm::Der), der)?;
                Ok(pem(pair.public_key().as_der()?.as_ref()))
            }
        }
    }

    /// A signature over `content`.
    pub(super) fn sign(&self, algorithm: Algorithm, content: &[u8]) -> anyhow::Result<Vec<u8>> {
        use rsa::{pkcs1v15, pss, signature::Signer as _};
        let mut random = rsa::rand_core::UnwrapErr(getrandom::SysRng);
        let key = |key: &rsa::PrivateKey| key.clone();
        Ok(match (self, algorithm) {
            (Self::Rsa(rsa), Algorithm::RsaPkcs1Sha1) => {
                pkcs1v15::SigningKey::<sha1::Sha1>::new(key(rsa)).try_sign(content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPkcs1Sha256) => {
                pkcs1v15::SigningKey::<sha2::Sha256>::new(key(rsa)).try_sign(content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPkcs1Sha384) => {
                pkcs1v15::SigningKey::<sha2::Sha384>::new(key(rsa)).try_sign(content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPkcs1Sha512) => {
                pkcs1v15::SigningKey::<sha2::Sha512>::new(key(rsa)).try_sign(content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPssSha256) => {
                pss::SigningKey::<sha2::Sha256>::new(key(rsa)).try_sign_with_rng(&mut random, content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPssSha384) => {
                pss::SigningKey::<sha2::Sha384>::new(key(rsa)).try_sign_with_rng(&mut random, content)?.to_vec()
            }
            (Self::Rsa(rsa), Algorithm::RsaPssSha512) => {
                pss::SigningKey::<sha2::Sha512>::new(key(rsa)).try_sign_with_rng(&mut random, content)?.to_vec()
            }
            (Self::Ed25519(pair), Algorithm::Ed25519) => pair.sign(content).as_ref().to_vec(),
            (
                Self::Ecdsa(bits, der),
                Algorithm::EcdsaP256Sha256(form) | Algorithm::EcdsaP384Sha384(form) | Algorithm::EcdsaP521Sha512(form),
            ) => {
                let pair = EcdsaKeyPair::from_pkcs8(of_curve(*bits, form), der)?;
                pair.sign(&SystemRandom::new(), content)?.as_ref().to_vec()
            }
            _ => bail!("the private key is of another kind than the scheme's algorithm"),
        })
    }
}

fn of_curve(bits: u16, form: EcdsaForm) -> &'static EcdsaSigningAlgorithm {
    match (bits, form) {
        (256, EcdsaForm::Der) => &lc::ECDSA_P256_SHA256_ASN1_SIGNING,
        (256, EcdsaForm::P1363) => &lc::ECDSA_P256_SHA256_FIXED_SIGNING,
        (384, EcdsaForm::Der) => &lc::ECDSA_P384_SHA384_ASN1_SIGNING,
        (384, EcdsaForm::P1363) => &lc::ECDSA_P384_SHA384_FIXED_SIGNING,
        (_, EcdsaForm::Der) => &lc::ECDSA_P521_SHA512_ASN1_SIGNING,
        (_, EcdsaForm::P1363) => &lc::ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

fn pem(der: &[u8]) -> String {
    let base64: Vec<char> = Encoding::Base64.encode(der).chars().collect();
    let lines: Vec<String> = base64.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}
