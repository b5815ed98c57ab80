//! Compiles signatures over signed content, and judges whether they protect what an operator would think.

use super::{MAX_TOLERANCE, SchemeCompiler, duration, encoding, hash};
use crate::{
    config::{challenge::header_name, file, problem::Path},
    received::Place,
    scheme::{
        algorithm::{Algorithm, EcdsaForm},
        digest::BodyDigest,
        http_message_signature::HttpMessageSignature,
        listed_headers::{List, ListedHeaders},
        mac::{Hash, MacKey},
        signature::{Location, SignatureSource},
        signed::{KeyIdSource, Signed, Signer, TimestampRule, TimestampSource},
        signed_content::{Piece, PublicUrl, SignedContent},
        timestamp::{Tolerance, Unit},
    },
};

/// What hmac, `keyed_hash` and `public_key` have in common, as it is written.
struct Written<'w> {
    signed_content: &'w str,
    signature: &'w file::Signature,
    timestamp: Option<&'w file::Timestamp>,
    body_digest: Option<&'w file::BodyDigest>,
    listed_headers: Option<&'w file::ListedHeaders>,
    each: Option<&'w str>,
    leaves_body_unsigned: bool,
}

impl SchemeCompiler<'_> {
    /// `hmac` and `keyed_hash`.
    pub(super) fn mac(&mut self, written: &file::Mac, r#use: file::Use, path: &Path) -> Option<Signed> {
        let hash = hash(written.hash);
        let common = Written {
            signed_content: &written.signed_content,
            signature: &written.signature,
            timestamp: written.timestamp.as_ref(),
            body_digest: written.body_digest.as_ref(),
            listed_headers: written.listed_headers.as_ref(),
            each: written.each.as_deref(),
            leaves_body_unsigned: written.leaves_body_unsigned == Some(true),
        };
        let plain = r#use == file::Use::KeyedHash;
        let form = written.secret.clone().unwrap_or_default();
        self.secret_form.clone_from(&form);
        // Both, so that everything wrong is said at once.
        let content = self.template(common.signed_content, &path.key("signed_content"));
        let in_content = content.as_ref().is_some_and(|content| content.contains(&Piece::Secret));
        if plain && content.is_some() && !in_content {
            let path = path.key("signed_content");
            return self.findings.problem(&path, "leaves out `{secret}`; anybody can compute a plain hash");
        }
        let learned = if plain || in_content { None } else { self.learned.clone() };
        // What will be learned need not be written.
        let keys = if learned.is_some() && self.written.secrets.is_empty() {
            Some(Vec::new())
        } else {
            self.mac_keys(r#use, &form, |secret| {
                if plain { Some(MacKey::plain(hash, secret)) } else { MacKey::hmac(hash, secret, in_content) }
            })
        };
        let signed = self.signed(&common, content?, path);
        signed.map(|signed| Some(signed(Signer::Mac { hash, keys: keys?, learned })))?
    }

    /// `public_key`.
    pub(super) fn public_key_signature(&mut self, written: &file::PublicKeySignature, path: &Path) -> Option<Signed> {
        let common = Written {
            signed_content: &written.signed_content,
            signature: &written.signature,
            timestamp: written.timestamp.as_ref(),
            body_digest: written.body_digest.as_ref(),
            listed_headers: written.listed_headers.as_ref(),
            each: None,
            leaves_body_unsigned: written.leaves_body_unsigned == Some(true),
        };
        let [algorithm] = written.algorithms.as_slice() else {
            return self.findings.problem(&path.key("algorithms"), "needs exactly one algorithm");
        };
        let algorithm = self.algorithm(*algorithm, written.ecdsa_form, path)?;
        let key_id = match &written.key_id {
            None => None,
            Some(key_id) => Some(self.key_id(key_id, &path.key("key_id"))?),
        };
        let keys = self.key_ring(&[algorithm], written.remote_keys.as_ref(), &path.key("remote_keys"));
        let content = self.template(common.signed_content, &path.key("signed_content"))?;
        if content.contains(&Piece::Secret) {
            let path = path.key("signed_content");
            return self.findings.problem(&path, "has `{secret}`, and a private key's owner shares none");
        }
        let signed = self.signed(&common, content, path);
        signed.map(|signed| Some(signed(Signer::PrivateKey { algorithm, key_id, keys: keys? })))?
    }

    fn algorithm(
        &mut self,
        written: file::SignatureAlgorithm,
        form: Option<file::EcdsaForm>,
        path: &Path,
    ) -> Option<Algorithm> {
        use file::SignatureAlgorithm as Named;
        let ecdsa = match form {
            Some(file::EcdsaForm::P1363) => EcdsaForm::P1363,
            Some(file::EcdsaForm::Der) | None => EcdsaForm::Der,
        };
        let is_ecdsa = matches!(written, Named::EcdsaP256Sha256 | Named::EcdsaP384Sha384 | Named::EcdsaP521Sha512);
        if is_ecdsa != form.is_some() && written != Named::EcdsaP256Sha1 {
            return self.findings.problem(&path.key("ecdsa_form"), "goes with an ECDSA algorithm: `der` or `p1363`");
        }
        Some(match written {
            Named::RsaPkcs1Sha1 => Algorithm::RsaPkcs1Sha1,
            Named::RsaPkcs1Sha256 => Algorithm::RsaPkcs1Sha256,
            Named::RsaPkcs1Sha384 => Algorithm::RsaPkcs1Sha384,
            Named::RsaPkcs1Sha512 => Algorithm::RsaPkcs1Sha512,
            Named::RsaPssSha256 => Algorithm::RsaPssSha256,
            Named::RsaPssSha384 => Algorithm::RsaPssSha384,
            Named::RsaPssSha512 => Algorithm::RsaPssSha512,
            Named::EcdsaP256Sha1 => Algorithm::EcdsaP256Sha1,
            Named::EcdsaP256Sha256 => Algorithm::EcdsaP256Sha256(ecdsa),
            Named::EcdsaP384Sha384 => Algorithm::EcdsaP384Sha384(ecdsa),
            Named::EcdsaP521Sha512 => Algorithm::EcdsaP521Sha512(ecdsa),
            Named::Ed25519 => Algorithm::Ed25519,
        })
    }

    fn key_id(&mut self, written: &file::KeyIdPlace, path: &Path) -> Option<KeyIdSource> {
        let file::KeyIdPlace { header, query, json, envelope, member } = written;
        let place = self.place(header.as_deref(), query.as_deref(), None, json.as_deref(), path)?;
        Some(KeyIdSource { place, member: self.member(*envelope, member.as_ref(), path)? })
    }

    #[expect(clippy::option_option, reason = "outer: whether it could be read; inner: whether there is an envelope")]
    fn member(
        &mut self,
        envelope: Option<file::Envelope>,
        member: Option<&String>,
        path: &Path,
    ) -> Option<Option<String>> {
        match (envelope, member) {
            (None, None) => Some(None),
            (Some(file::Envelope::Base64Json), Some(member)) => Some(Some(member.clone())),
            _ => self.findings.problem(path, "needs both `envelope` and `member`, or neither"),
        }
    }

    /// Everything but who signs; that is put in by the caller.
    fn signed(
        &mut self,
        written: &Written<'_>,
        content: SignedContent,
        path: &Path,
    ) -> Option<impl FnOnce(Signer) -> Signed + use<>> {
        let signature = self.signature(written.signature, &path.key("signature"));
        let timestamp = match written.timestamp {
            Some(timestamp) => self.timestamp(timestamp, &path.key("timestamp")).map(Some),
            None => Some(None),
        };
        let body_digest = match written.body_digest {
            Some(digest) => self.body_digest(digest, &path.key("body_digest")).map(Some),
            None => Some(None),
        };
        let listed_headers = match written.listed_headers {
            Some(listed) => self.listed_headers(listed, &path.key("listed_headers")).map(Some),
            None => Some(None),
        };
        let each = match written.each {
            Some(each) => self.pointer(each, &path.key("each")).map(Some),
            None => Some(None),
        };
        if written.timestamp.is_none() && self.written.tolerance.is_some() {
            self.findings.problem::<()>(
                &self.path.key("tolerance"),
                "stands beside a scheme that signs no time; there is nothing to tolerate",
            );
        }
        let (signature, timestamp, body_digest) = (signature?, timestamp?, body_digest?);
        let (listed_headers, each) = (listed_headers?, each?);
        let covers_body = self.judge_coverage(written, &content, timestamp.as_ref(), body_digest.as_ref(), path);
        Some(move |signer| Signed {
            content,
            signature,
            timestamp,
            body_digest,
            listed_headers,
            each,
            covers_body,
            signer,
            oracles: Vec::new(),
        })
    }

    /// A signature that leaves out the body or the timestamp it is judged by protects neither. Says whether it covers
    /// the body.
    fn judge_coverage(
        &mut self,
        written: &Written<'_>,
        content: &SignedContent,
        timestamp: Option<&TimestampRule>,
        digest: Option<&BodyDigest>,
        path: &Path,
    ) -> bool {
        let place = path.key("signed_content");
        let digest_is_signed = digest.is_some_and(|digest| match &digest.place {
            Place::Query(_) => {
                content.any(&|piece| matches!(piece, Piece::Url(_) | Piece::Target | Piece::RawQuery))
                    || content.contains(&Piece::At(digest.place.clone()))
            }
            Place::Header(name) => {
                content.contains(&Piece::At(digest.place.clone()))
                    || written.listed_headers.is_some_and(|listed| {
                        listed.required.iter().any(|required| required.eq_ignore_ascii_case(name))
                    })
            }
            Place::Form(_) | Place::Json(_) | Place::Body => false,
        });
        let whole_body = content.covers_body() || digest_is_signed;
        if !whole_body && !written.leaves_body_unsigned {
            self.findings.problem::<()>(
                &place,
                "leaves out `{body}`; anybody could change the delivery. Say `leaves_body_unsigned: true` if the provider signs no more",
            );
        }
        if digest.is_some() && !digest_is_signed {
            self.findings.problem::<()>(&place, "leaves out the header or query parameter that `body_digest` names");
        }
        let covered = |rule: &TimestampRule| match &rule.source {
            _ if content.contains(&Piece::Timestamp) => true,
            TimestampSource::At(Place::Json(_) | Place::Form(_)) if content.covers_body() => true,
            TimestampSource::At(Place::Query(_))
                if content.any(&|piece| matches!(piece, Piece::Url(_) | Piece::Target | Piece::RawQuery)) =>
            {
                true
            }
            TimestampSource::At(place) => {
                let member = match place {
                    Place::Json(pointer) => pointer.trim_start_matches('/').to_owned(),
                    Place::Header(name) => name.clone(),
                    Place::Query(_) | Place::Form(_) | Place::Body => String::new(),
                };
                let in_lines = |piece: &Piece| matches!(piece, Piece::JsonLines(names) if names.contains(&member));
                let listed = written.listed_headers.is_some_and(|listed| {
                    listed.required.iter().any(|required| required.eq_ignore_ascii_case(&member))
                });
                content.contains(&Piece::At(place.clone())) || content.any(&in_lines) || listed
            }
            TimestampSource::Field(_) | TimestampSource::Entry(_) => false,
        };
        match timestamp {
            Some(rule) if !covered(rule) => {
                self.findings.problem::<()>(&place, "leaves out `{timestamp}`; anybody could renew a delivery");
            }
            None if content.contains(&Piece::Timestamp) => {
                self.findings
                    .problem::<()>(&place, "has `{timestamp}`, but there is no `timestamp` to say where it stands");
            }
            Some(_) | None => {}
        }
        whole_body
    }

    fn signature(&mut self, written: &file::Signature, path: &Path) -> Option<SignatureSource> {
        let location = self.location(written, path)?;
        if [&written.separator, &written.group_separator].iter().any(|text| text.as_deref() == Some("")) {
            return self
                .findings
                .problem(&path.key("separator"), "is empty; leave it out where there is one signature");
        }
        if (written.field.is_some() || written.skip.is_some()) && written.separator.is_none() {
            return self.findings.problem(path, "has `field` or `skip`, which need `separator` to part the entries");
        }
        let field = match &written.field {
            None => None,
            Some(field) => Some(self.constant(field, &path.key("field"))?),
        };
        Some(SignatureSource {
            location,
            member: self.member(written.envelope, written.member.as_ref(), path)?,
            auth_scheme: written.auth_scheme.clone(),
            group_separator: written.group_separator.clone(),
            separator: written.separator.clone(),
            field,
            field_separator: written.field_separator.clone().unwrap_or_else(|| "=".to_owned()),
            skip: written.skip.unwrap_or(0),
            prefix: written.prefix.clone().unwrap_or_default(),
            encoding: encoding(written.encoding),
        })
    }

    fn location(&mut self, written: &file::Signature, path: &Path) -> Option<Location> {
        let file::Signature { header, headers, numbered_header, query, form, json, item, .. } = written;
        let (header, query) = (header.as_deref(), query.as_deref());
        match (headers, numbered_header, item) {
            (None, None, None) => self.place(header, query, form.as_deref(), json.as_deref(), path).map(Location::At),
            (Some(names), None, None) if header.is_none() && names.len() > 1 => names
                .iter()
                .map(|name| header_name(name, &path.key("headers"), self.findings))
                .collect::<Option<_>>()
                .map(Location::Headers),
            (None, Some(stem), None) if header.is_none() => {
                header_name(stem, &path.key("numbered_header"), self.findings).map(Location::NumberedHeader)
            }
            (None, None, Some(item)) if header.is_none() => self.pointer(item, &path.key("item")).map(Location::Item),
            _ => self.findings.problem(path, "needs exactly one place; `headers` needs at least two names"),
        }
    }

    fn timestamp(&mut self, written: &file::Timestamp, path: &Path) -> Option<TimestampRule> {
        let file::Timestamp { header, field, entry, query, form, json, .. } = written;
        let none_at = header.is_none() && query.is_none() && form.is_none() && json.is_none();
        let source = match (field, entry) {
            (Some(field), None) if none_at => TimestampSource::Field(field.clone()),
            (None, Some(entry)) if none_at => TimestampSource::Entry(*entry),
            (None, None) => TimestampSource::At(self.place(
                header.as_deref(),
                query.as_deref(),
                form.as_deref(),
                json.as_deref(),
                path,
            )?),
            _ => return self.findings.problem(path, "needs exactly one place"),
        };
        let unit = match written.unit {
            file::Unit::S => Unit::Seconds,
            file::Unit::Ms => Unit::Milliseconds,
            file::Unit::Rfc3339 => Unit::Rfc3339,
            file::Unit::HttpDate => Unit::HttpDate,
        };
        let mut tolerance = self.tolerance(written.tolerance.as_deref(), &path.key("tolerance"))?;
        if let Some(text) = &written.future_tolerance {
            tolerance.future = self.bounded(text, &path.key("future_tolerance"))?;
        }
        Some(TimestampRule { source, unit, tolerance })
    }

    /// The endpoint's own tolerance, else the scheme's, else five minutes; on both sides.
    pub(super) fn tolerance(&mut self, of_scheme: Option<&str>, path: &Path) -> Option<Tolerance> {
        let (text, path) = match (&self.written.tolerance, of_scheme) {
            (Some(text), _) => (text.as_str(), self.path.key("tolerance")),
            (None, Some(text)) => (text, path.clone()),
            (None, None) => ("5m", path.clone()),
        };
        self.bounded(text, &path).map(Tolerance::both)
    }

    fn bounded(&mut self, text: &str, path: &Path) -> Option<std::time::Duration> {
        let tolerance = duration(text, path, self.findings)?;
        if tolerance > MAX_TOLERANCE {
            return self.findings.problem(path, "is more than `7d`; a timestamp that old says nothing");
        }
        Some(tolerance)
    }

    fn body_digest(&mut self, written: &file::BodyDigest, path: &Path) -> Option<BodyDigest> {
        if written.claim.is_some() {
            return self.findings.problem(&path.key("claim"), "belongs to `jwt`; name a `header` or a `query`");
        }
        Some(BodyDigest {
            place: self.place(written.header.as_deref(), written.query.as_deref(), None, None, path)?,
            hash: hash(written.hash),
            prefix: written.prefix.clone().unwrap_or_default(),
            encoding: encoding(written.encoding),
        })
    }

    pub(super) fn listed_headers(&mut self, written: &file::ListedHeaders, path: &Path) -> Option<ListedHeaders> {
        let list = match (&written.list.header, &written.list.protected) {
            (Some(header), None) => List::At(Place::Header(header_name(header, &path.key("list"), self.findings)?)),
            (None, Some(member)) => List::Protected(member.clone()),
            _ => return self.findings.problem(&path.key("list"), "needs exactly one of `header` and `protected`"),
        };
        let line = written.line.split_once("{name}").and_then(|(before, rest)| {
            let (between, behind) = rest.split_once("{value}")?;
            Some((before.to_owned(), between.to_owned(), behind.to_owned()))
        });
        let Some(line) = line else {
            return self.findings.problem(&path.key("line"), "is not a line; write `{name}:{value}`");
        };
        Some(ListedHeaders {
            list,
            separator: written.separator.clone().unwrap_or_else(|| ",".to_owned()),
            line,
            join: written.join.clone().unwrap_or_default(),
            required: written.required.iter().map(|name| name.to_ascii_lowercase()).collect(),
        })
    }

    /// `http_message_signature`.
    pub(super) fn http_message_signature(
        &mut self,
        written: &file::HttpMessageSignature,
        path: &Path,
    ) -> Option<HttpMessageSignature> {
        if written.algorithms.is_empty() || written.required.is_empty() {
            return self.findings.problem(path, "needs `algorithms` and `required`");
        }
        let algorithms: Vec<Algorithm> = written
            .algorithms
            .iter()
            .filter_map(|algorithm| match algorithm {
                file::MessageSignatureAlgorithm::Ed25519 => Some(Algorithm::Ed25519),
                file::MessageSignatureAlgorithm::EcdsaP256Sha256 => Some(Algorithm::EcdsaP256Sha256(EcdsaForm::P1363)),
                file::MessageSignatureAlgorithm::EcdsaP384Sha384 => Some(Algorithm::EcdsaP384Sha384(EcdsaForm::P1363)),
                file::MessageSignatureAlgorithm::RsaPssSha512 => Some(Algorithm::RsaPssSha512),
                file::MessageSignatureAlgorithm::RsaPkcs1Sha256 => Some(Algorithm::RsaPkcs1Sha256),
                file::MessageSignatureAlgorithm::HmacSha256 => None,
            })
            .collect();
        let by_secret = written.algorithms.contains(&file::MessageSignatureAlgorithm::HmacSha256);
        let configured = !self.written.secrets.is_empty();
        let secrets = if by_secret && (configured || algorithms.is_empty()) {
            let form = written.secret.clone().unwrap_or_default();
            let key = |secret| MacKey::hmac(Hash::Sha256, secret, false);
            self.mac_keys(file::Use::HttpMessageSignature, &form, key)?
        } else {
            Vec::new()
        };
        // An endpoint whose sender shares a secret has no public key, and the other way round.
        let remote = self.written.key_source == Some(file::KeySource::Remote);
        let with_keys =
            !algorithms.is_empty() && (secrets.is_empty() || !self.written.public_keys.is_empty() || remote);
        let (algorithms, keys) = if with_keys {
            let keys = self.key_ring(&algorithms, written.remote_keys.as_ref(), &path.key("remote_keys"))?;
            (algorithms, keys)
        } else {
            (Vec::new(), crate::scheme::key_ring::KeyRing::default())
        };
        let covers = |name: &str| written.required.iter().any(|required| required == name);
        let public_url = self.written.public_url.as_deref().and_then(PublicUrl::parse);
        if (covers("@target-uri") || covers("@scheme")) && public_url.is_none() {
            return self.findings.problem(
                &self.path.key("public_url"),
                "is needed: the provider signs the address it was given; write `https://host/path`",
            );
        }
        let covers_body = self.judge_components(
            (covers("content-digest"), "content-digest", written.leaves_body_unsigned == Some(true)),
            (written.parameters.iter().any(|parameter| parameter == "created"), "created"),
            path,
        );
        Some(HttpMessageSignature {
            covers_body,
            required: written.required.clone(),
            parameters: written.parameters.clone(),
            tag: written.tag.clone(),
            tolerance: self.tolerance(written.tolerance.as_deref(), &path.key("tolerance"))?,
            public_url,
            algorithms,
            keys,
            secrets,
        })
    }
}
