//! Compiles tokens: those that are sent as they are, and those that are signed.

use super::{SchemeCompiler, duration, encoding, hash};
use crate::{
    config::{file, problem::Path},
    scheme::{
        algorithm::{Algorithm, EcdsaForm},
        certificate_chain::CertificateChain,
        jwt::{Claim, DigestClaim, Issuer, Jwt, TimeRule, TokenPlace},
        mac::{Hash, MacKey},
        signed_content::SignedContent,
        token::{Token, TokenSource},
    },
};
use std::{collections::BTreeMap, time::Duration};
use x509_cert::der::asn1::ObjectIdentifier;

/// Most that clocks may differ.
const MAX_LEEWAY: Duration = Duration::from_secs(600);

impl SchemeCompiler<'_> {
    /// `token`, and the token of a challenge.
    pub(in crate::config) fn token(&mut self, written: &file::Token, r#use: file::Use, path: &Path) -> Option<Token> {
        let file::Token { header, auth_scheme, query, json, form } = written;
        if auth_scheme.is_some() && header.is_none() {
            return self.findings.problem(&path.key("auth_scheme"), "belongs to `header`");
        }
        let source = match json {
            Some(pointer) if pointer.contains("/*") => {
                if header.is_some() || query.is_some() || form.is_some() {
                    return self.findings.problem(path, "needs exactly one place");
                }
                TokenSource::EachJson(self.pointer(pointer, &path.key("json"))?)
            }
            _ => TokenSource::At {
                place: self.place(header.as_deref(), query.as_deref(), form.as_deref(), json.as_deref(), path)?,
                auth_scheme: auth_scheme.clone(),
            },
        };
        let keys = self.secrets(r#use, &file::SecretForm::default())?;
        Some(Token { source, keys })
    }

    /// `jwt`.
    pub(super) fn jwt(&mut self, written: &file::Jwt, path: &Path) -> Option<Jwt> {
        let source = self.token_place(&written.token, &path.key("token"));
        let detached = match &written.detached {
            None => Some(None),
            Some(text) => self.template(text, &path.key("detached")).map(Some),
        };
        let claims = self.claims(&written.claims, &path.key("claims"));
        let header = self.claims(&written.header, &path.key("header"));
        let listed_headers = match &written.listed_headers {
            None => Some(None),
            Some(listed) => self.listed_headers(listed, &path.key("listed_headers")).map(Some),
        };
        let body_digest = match &written.body_digest {
            None => Some(None),
            Some(digest) => self.digest_claim(digest, &path.key("body_digest")).map(Some),
        };
        let of_payload = [
            ("claims", !written.claims.is_empty()),
            ("body_digest", written.body_digest.is_some()),
            ("expiry", written.expiry.is_some()),
            ("issued_at", written.issued_at.is_some()),
        ];
        for (field, _) in of_payload.iter().filter(|(_, there)| *there && written.detached.is_some()) {
            self.findings.problem::<()>(&path.key(field), "looks into a payload, and a detached token carries none");
        }
        let time = self.time(written, path);
        let issuer = self.issuer(written, path);
        let (source, detached, body_digest) = (source?, detached?, body_digest?);
        let covers_body = match &detached {
            Some(content) => content.covers_body(),
            None => body_digest.is_some() || carries_everything(&source),
        };
        if !covers_body && written.unsigned_body != Some(true) {
            return self.findings.problem(
                path,
                "says nothing about the body; anybody who sees a token could send another one. Name `body_digest`, or say `unsigned_body: true` if the provider signs no more",
            );
        }
        Some(Jwt {
            source,
            detached,
            listed_headers: listed_headers?,
            header: header?,
            claims: claims?,
            body_digest,
            time: time?,
            covers_body,
            issuer: issuer?,
        })
    }

    fn token_place(&mut self, written: &file::TokenPlace, path: &Path) -> Option<TokenPlace> {
        let file::TokenPlace { header, auth_scheme, query, json, form, body } = written;
        if *body == Some(true) {
            return if header.is_none() && query.is_none() && json.is_none() && form.is_none() {
                Some(TokenPlace::Body)
            } else {
                self.findings.problem(path, "needs exactly one place")
            };
        }
        let place = self.place(header.as_deref(), query.as_deref(), form.as_deref(), json.as_deref(), path)?;
        Some(TokenPlace::At(place, auth_scheme.clone()))
    }

    fn claims(&mut self, written: &BTreeMap<String, file::Texts>, path: &Path) -> Option<Vec<Claim>> {
        let mut claims = Vec::new();
        for (name, texts) in written {
            let path = path.key(name);
            let (texts, hashed) = match texts {
                file::Texts::One(text) => (std::slice::from_ref(text), None),
                file::Texts::Several(texts) => (texts.as_slice(), None),
                file::Texts::Hashed(of) => (std::slice::from_ref(&of.of), Some((hash(of.hash), encoding(of.encoding)))),
            };
            if texts.is_empty() {
                return self.findings.problem(&path, "is empty");
            }
            let any_of: Option<Vec<SignedContent>> = texts.iter().map(|text| self.template(text, &path)).collect();
            claims.push(any_of.map(|any_of| Claim { pointer: claim_pointer(name), any_of, hashed }));
        }
        claims.into_iter().collect()
    }

    fn digest_claim(&mut self, written: &file::BodyDigest, path: &Path) -> Option<DigestClaim> {
        match (&written.claim, &written.header, &written.query) {
            (Some(claim), None, None) => Some(DigestClaim {
                pointer: claim_pointer(claim),
                hash: hash(written.hash),
                encoding: encoding(written.encoding),
            }),
            _ => self.findings.problem(path, "needs `claim`, and no other place"),
        }
    }

    fn time(&mut self, written: &file::Jwt, path: &Path) -> Option<TimeRule> {
        let place = path.key("leeway");
        let leeway = duration(written.leeway.as_deref().unwrap_or("0s"), &place, self.findings)?;
        if leeway > MAX_LEEWAY {
            return self.findings.problem(&place, "is more than `10m`; set the clock instead");
        }
        let max_age = match (&written.issued_at, &self.written.tolerance) {
            (None, None) => None,
            (None, Some(_)) => {
                let place = self.path.key("tolerance");
                return self
                    .findings
                    .problem(&place, "stands beside a scheme whose tokens say themselves when they end");
            }
            (Some(_), Some(text)) => {
                let place = self.path.key("tolerance");
                Some(duration(text, &place, self.findings)?)
            }
            (Some(issued), None) => {
                Some(duration(&issued.max_age, &path.key("issued_at").key("max_age"), self.findings)?)
            }
        };
        Some(TimeRule { expiry_required: written.expiry != Some(file::Expiry::Optional), max_age, leeway })
    }

    fn issuer(&mut self, written: &file::Jwt, path: &Path) -> Option<Issuer> {
        let hashes: Vec<Hash> = written.algorithms.iter().filter_map(|algorithm| mac_of(*algorithm)).collect();
        let algorithms: Vec<Algorithm> = written.algorithms.iter().filter_map(|a| signature_of(*a)).collect();
        match (hashes.as_slice(), algorithms.as_slice()) {
            ([], []) => self.findings.problem(&path.key("algorithms"), "is empty"),
            ([], _) => {
                if let Some(chain) = &written.certificate_chain {
                    let chain = self.certificate_chain(chain, &path.key("certificate_chain"))?;
                    return Some(Issuer::Chain { algorithms, chain });
                }
                let keys = self.key_ring(&algorithms, written.remote_keys.as_ref(), &path.key("remote_keys"))?;
                Some(Issuer::PrivateKey { algorithms, keys })
            }
            (_, []) => {
                let form = written.secret.clone().unwrap_or_default();
                let keys: Option<Vec<_>> = hashes
                    .into_iter()
                    .map(|hash| {
                        let key = |secret| MacKey::hmac(hash, secret, false);
                        Some((hash, self.mac_keys(file::Use::Jwt, &form, key)?))
                    })
                    .collect();
                keys.map(Issuer::Mac)
            }
            // With both, a public key that everybody knows could be taken for the shared secret (CVE-2015-9235).
            _ => self.findings.problem(&path.key("algorithms"), "mixes shared secrets (HS…) with private keys"),
        }
    }

    fn certificate_chain(&mut self, written: &file::CertificateChain, path: &Path) -> Option<CertificateChain> {
        let file::RootsFrom::PublicKeys = written.roots_from;
        let mut mark = |field: &str, text: &Option<String>| match text {
            None => Some(None),
            Some(text) => match ObjectIdentifier::new(text) {
                Ok(oid) => Some(Some(oid)),
                Err(_) => self.findings.problem(&path.key(field), "is not an object identifier; write `1.2.840.1`"),
            },
        };
        let leaf_mark = mark("leaf_oid", &written.leaf_oid);
        let intermediate_mark = mark("intermediate_oid", &written.intermediate_oid);
        Some(CertificateChain {
            roots: self.authorities()?,
            leaf_mark: leaf_mark?,
            intermediate_mark: intermediate_mark?,
        })
    }
}

/// Whether the token is all there is to the delivery, or the one member of the body that says anything.
fn carries_everything(place: &TokenPlace) -> bool {
    match place {
        TokenPlace::Body => true,
        TokenPlace::At(..) => false,
    }
}

/// A claim's name, or a pointer to it.
fn claim_pointer(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{}", name.replace('~', "~0").replace('/', "~1")) }
}

fn mac_of(written: file::JwtAlgorithm) -> Option<Hash> {
    match written {
        file::JwtAlgorithm::Hs256 => Some(Hash::Sha256),
        file::JwtAlgorithm::Hs384 => Some(Hash::Sha384),
        file::JwtAlgorithm::Hs512 => Some(Hash::Sha512),
        file::JwtAlgorithm::Rs256
        | file::JwtAlgorithm::Rs384
        | file::JwtAlgorithm::Rs512
        | file::JwtAlgorithm::Ps256
        | file::JwtAlgorithm::Ps384
        | file::JwtAlgorithm::Ps512
        | file::JwtAlgorithm::Es256
        | file::JwtAlgorithm::Es384
        | file::JwtAlgorithm::Es512
        | file::JwtAlgorithm::EdDsa => None,
    }
}

fn signature_of(written: file::JwtAlgorithm) -> Option<Algorithm> {
    use file::JwtAlgorithm as Named;
    match written {
        Named::Rs256 => Some(Algorithm::RsaPkcs1Sha256),
        Named::Rs384 => Some(Algorithm::RsaPkcs1Sha384),
        Named::Rs512 => Some(Algorithm::RsaPkcs1Sha512),
        Named::Ps256 => Some(Algorithm::RsaPssSha256),
        Named::Ps384 => Some(Algorithm::RsaPssSha384),
        Named::Ps512 => Some(Algorithm::RsaPssSha512),
        Named::Es256 => Some(Algorithm::EcdsaP256Sha256(EcdsaForm::P1363)),
        Named::Es384 => Some(Algorithm::EcdsaP384Sha384(EcdsaForm::P1363)),
        Named::Es512 => Some(Algorithm::EcdsaP521Sha512(EcdsaForm::P1363)),
        Named::EdDsa => Some(Algorithm::Ed25519),
        Named::Hs256 | Named::Hs384 | Named::Hs512 => None,
    }
}
