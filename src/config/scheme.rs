//! Compiles schemes: templates parsed, secrets fetched, keys judged.

use super::{
    challenge::{header_name, reply},
    compile::Context,
    file,
    problem::{Findings, Path},
    secret_source,
};
use crate::{
    clock::UnixSeconds,
    decision::Reply,
    delivery::ClientAddress,
    key_fetcher::Origin,
    scheme::{
        Scheme,
        basic::Basic,
        hmac::{Hash, Hmac, TimestampRule, TimestampSource},
        http_signature::{Algorithm, HttpSignature, KeyId, RequestTarget, SignatureHeader},
        ip_lease::IpLease,
        public_key::RsaKey,
        remote_keys::{Ask, KeyIdShape, RemoteKeys},
        signature::{Encoding, SignatureSource},
        signed_content::{Piece, SignedContent},
        timestamp::{Tolerance, Unit},
        token::{Token, TokenSource},
    },
    secret::{Key, Label, Secret},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Longest tolerance: beyond it a timestamp says nothing.
const MAX_TOLERANCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest lease.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);
/// Most keys of one endpoint: each costs a verification per forged delivery.
const MAX_KEYS: usize = 8;

/// Compiles the schemes of one endpoint, and notes which of its secrets and keys they took.
#[derive(Debug)]
pub struct SchemeCompiler<'a> {
    name: &'a str,
    client: ClientAddress,
    context: &'a Context,
    path: &'a Path,
    written: &'a file::Endpoint,
    findings: &'a mut Findings,
    used: Vec<file::Use>,
    took_public_keys: bool,
    took_key_source: bool,
}

impl<'a> SchemeCompiler<'a> {
    /// A compiler for the endpoint `name`, which stands at `path`.
    pub fn new(
        name: &'a str,
        client: ClientAddress,
        context: &'a Context,
        path: &'a Path,
        written: &'a file::Endpoint,
        findings: &'a mut Findings,
    ) -> Self {
        Self {
            name,
            client,
            context,
            path,
            written,
            findings,
            used: Vec::new(),
            took_public_keys: false,
            took_key_source: false,
        }
    }

    /// Compiles one scheme, written at `path`.
    pub fn compile(&mut self, scheme: &file::Scheme, path: &Path) -> Option<Scheme> {
        let file::Scheme { hmac, token, ip_lease, http_signature, basic, all_of, any_of } = scheme;
        let there = [
            hmac.is_some(),
            token.is_some(),
            ip_lease.is_some(),
            http_signature.is_some(),
            basic.is_some(),
            all_of.is_some(),
            any_of.is_some(),
        ];
        if there.iter().filter(|there| **there).count() != 1 {
            return self.findings.problem(
                path,
                "needs exactly one of `hmac`, `token`, `ip_lease`, `http_signature`, `basic`, `all_of` and `any_of`",
            );
        }
        if let Some(hmac) = hmac {
            return self.hmac(hmac, &path.key("hmac")).map(Scheme::Hmac);
        }
        if let Some(token) = token {
            return self.token(token, &path.key("token")).map(Scheme::Token);
        }
        if let Some(lease) = ip_lease {
            return self.ip_lease(lease, &path.key("ip_lease")).map(Scheme::IpLease);
        }
        if let Some(signature) = http_signature {
            return self.http_signature(signature, &path.key("http_signature")).map(Scheme::HttpSignature);
        }
        if basic.is_some() {
            let keys = self.secrets(file::Use::Basic, &file::SecretForm::default())?;
            return Some(Scheme::Basic(Basic { keys }));
        }
        if let Some(members) = all_of {
            return self.members(members, &path.key("all_of")).map(Scheme::AllOf);
        }
        self.members(any_of.as_deref().unwrap_or_default(), &path.key("any_of")).map(Scheme::AnyOf)
    }

    fn members(&mut self, members: &[file::Scheme], path: &Path) -> Option<Vec<Scheme>> {
        if members.len() < 2 {
            return self.findings.problem(path, "needs at least two schemes");
        }
        let compiled: Vec<Option<Scheme>> =
            members.iter().enumerate().map(|(at, member)| self.compile(member, &path.index(at))).collect();
        compiled.into_iter().collect()
    }

    fn hmac(&mut self, written: &file::Hmac, path: &Path) -> Option<Hmac> {
        let content = self.signed_content(&written.signed_content, &path.key("signed_content"));
        let signature = self.signature(&written.signature, &path.key("signature"));
        let timestamp = match &written.timestamp {
            Some(timestamp) => self.timestamp(timestamp, &path.key("timestamp")).map(Some),
            None => Some(None),
        };
        if let (Some(content), Some(timestamp)) = (&content, &timestamp) {
            self.judge_coverage(content, timestamp.as_ref(), path);
        }
        if written.timestamp.is_none() && self.written.tolerance.is_some() {
            self.findings.problem::<()>(
                &self.path.key("tolerance"),
                "stands beside a scheme that signs no time; there is nothing to tolerate",
            );
        }
        let hash = match written.hash {
            file::Hash::Sha1 => Hash::Sha1,
            file::Hash::Sha256 => Hash::Sha256,
            file::Hash::Sha384 => Hash::Sha384,
            file::Hash::Sha512 => Hash::Sha512,
        };
        let form = written.secret.clone().unwrap_or_default();
        let secrets = self.secrets(file::Use::Hmac, &form)?;
        let keys: Option<Vec<_>> = secrets
            .into_iter()
            .map(|Key { label, from, until, value }| Some(Key { label, from, until, value: hash.keyed(&value)? }))
            .collect();
        Some(Hmac { content: content?, signature: signature?, timestamp: timestamp?, hash, keys: keys? })
    }

    fn signed_content(&mut self, template: &str, path: &Path) -> Option<SignedContent> {
        match SignedContent::parse(template) {
            Ok(content) => Some(content),
            Err(unknown) => self.findings.problem(
                path,
                format!(
                    "has `{}`; known are `{{body}}`, `{{timestamp}}`, `{{method}}`, `{{target}}` and `{{header:NAME}}`",
                    unknown.0
                ),
            ),
        }
    }

    /// A signature that leaves out the body or the timestamp it is judged by protects neither.
    fn judge_coverage(&mut self, content: &SignedContent, timestamp: Option<&TimestampRule>, path: &Path) {
        let path = path.key("signed_content");
        if !content.contains(&Piece::Body) {
            self.findings.problem::<()>(&path, "leaves out `{body}`; anybody could change the delivery");
        }
        let covered = |rule: &TimestampRule| {
            let as_header = match &rule.source {
                TimestampSource::Header(name) => content.contains(&Piece::Header(name.clone())),
                TimestampSource::Field(_) => false,
            };
            content.contains(&Piece::Timestamp) || as_header
        };
        match timestamp {
            Some(rule) if !covered(rule) => {
                self.findings.problem::<()>(&path, "leaves out `{timestamp}`; anybody could renew a delivery");
            }
            None if content.contains(&Piece::Timestamp) => {
                self.findings
                    .problem::<()>(&path, "has `{timestamp}`, but there is no `timestamp` to say where it stands");
            }
            Some(_) | None => {}
        }
    }

    fn signature(&mut self, written: &file::Signature, path: &Path) -> Option<SignatureSource> {
        let header = header_name(&written.header, &path.key("header"), self.findings)?;
        if written.separator.as_deref() == Some("") {
            return self
                .findings
                .problem(&path.key("separator"), "is empty; leave it out where there is one signature");
        }
        if written.field.is_some() && written.separator.is_none() {
            return self
                .findings
                .problem(&path.key("field"), "needs `separator`, which parts the `name=value` entries");
        }
        Some(SignatureSource {
            header,
            auth_scheme: written.auth_scheme.clone(),
            separator: written.separator.clone(),
            field: written.field.clone(),
            prefix: written.prefix.clone().unwrap_or_default(),
            encoding: match written.encoding {
                file::Encoding::Hex => Encoding::Hex,
                file::Encoding::Base64 => Encoding::Base64,
                file::Encoding::Base64url => Encoding::Base64Url,
            },
        })
    }

    fn timestamp(&mut self, written: &file::Timestamp, path: &Path) -> Option<TimestampRule> {
        let source = match (&written.header, &written.field) {
            (Some(header), None) => TimestampSource::Header(header_name(header, &path.key("header"), self.findings)?),
            (None, Some(field)) => TimestampSource::Field(field.clone()),
            _ => return self.findings.problem(path, "needs exactly one of `header` and `field`"),
        };
        let unit = match written.unit {
            file::Unit::S => Unit::Seconds,
            file::Unit::Ms => Unit::Milliseconds,
        };
        let tolerance = self.tolerance(written.tolerance.as_deref(), &path.key("tolerance"))?;
        Some(TimestampRule { source, unit, tolerance })
    }

    /// The endpoint's own tolerance, else the scheme's, else five minutes.
    fn tolerance(&mut self, of_scheme: Option<&str>, path: &Path) -> Option<Tolerance> {
        let (text, path) = match (&self.written.tolerance, of_scheme) {
            (Some(text), _) => (text.as_str(), self.path.key("tolerance")),
            (None, Some(text)) => (text, path.clone()),
            (None, None) => ("5m", path.clone()),
        };
        let tolerance = duration(text, &path, self.findings)?;
        if tolerance > MAX_TOLERANCE {
            return self.findings.problem(&path, "is more than `7d`; a timestamp that old says nothing");
        }
        Some(Tolerance(tolerance))
    }

    fn token(&mut self, written: &file::Token, path: &Path) -> Option<Token> {
        let source = match (&written.header, &written.query) {
            (Some(header), None) => TokenSource::Header {
                name: header_name(header, &path.key("header"), self.findings)?,
                auth_scheme: written.auth_scheme.clone(),
            },
            (None, Some(query)) if written.auth_scheme.is_none() => TokenSource::Query(query.clone()),
            _ => {
                return self
                    .findings
                    .problem(path, "needs exactly one of `header` and `query`; `auth_scheme` belongs to `header`");
            }
        };
        let keys = self.secrets(file::Use::Token, &file::SecretForm::default())?;
        Some(Token { source, keys })
    }

    fn ip_lease(&mut self, written: &file::IpLease, path: &Path) -> Option<IpLease> {
        let ttl = duration(written.ttl.as_deref().unwrap_or("24h"), &path.key("ttl"), self.findings)?;
        if ttl.is_zero() || ttl > MAX_LEASE {
            return self.findings.problem(&path.key("ttl"), "is not between `1s` and `24h`");
        }
        let granted = match &written.granted {
            Some(written) => reply(written, &path.key("granted"), self.findings)?,
            None => Reply { status: 200, headers: Vec::new(), body: String::new() },
        };
        let keys = if written.generate_token == Some(true) && !self.has_secrets_for(file::Use::IpLease) {
            vec![self.generated_token()?]
        } else {
            self.secrets(file::Use::IpLease, &file::SecretForm::default())?
        };
        Some(IpLease {
            endpoint: self.name.to_owned(),
            source: TokenSource::Query(written.query.clone()),
            keys,
            ttl,
            allow_private_addresses: written.allow_private_addresses == Some(true),
            client: self.client,
            granted,
        })
    }

    fn has_secrets_for(&self, wanted: file::Use) -> bool {
        self.written.secrets.iter().any(|secret| secret.r#use.is_none_or(|r#use| r#use == wanted))
    }

    /// The endpoint's token of this process: made once, kept over reloads.
    fn generated_token(&mut self) -> Option<Key<Secret>> {
        self.used.push(file::Use::IpLease);
        let mut generated = self.context.kept.generated.lock().unwrap_or_else(PoisonError::into_inner);
        let token = if let Some(token) = generated.get(self.name) {
            token.clone()
        } else {
            let Ok(token) = secret_source::random_token() else {
                return self.findings.problem(self.path, "needs a random token, and the system gives no random bytes");
            };
            generated.insert(self.name.to_owned(), token.clone());
            token
        };
        let label = Arc::new(Label { id: "generated".to_owned(), tags: Vec::new() });
        Some(Key { label, from: None, until: None, value: Secret::new(token.into_bytes()) })
    }

    fn http_signature(&mut self, written: &file::HttpSignature, path: &Path) -> Option<HttpSignature> {
        for (field, empty) in [
            ("headers", written.headers.is_empty()),
            ("algorithms", written.algorithms.is_empty()),
            ("required", written.required.is_empty()),
        ] {
            if empty {
                self.findings.problem::<()>(&path.key(field), "is empty");
            }
        }
        let tolerance = self.tolerance(written.tolerance.as_deref(), &path.key("tolerance"))?;
        let remote = self.remote_keys(written.remote_keys.as_ref(), &path.key("remote_keys"));
        let keys = self.public_keys(self.written.key_source == Some(file::KeySource::Remote))?;
        Some(HttpSignature {
            remote,
            headers: written
                .headers
                .iter()
                .map(|header| match header {
                    file::SignatureHeader::Authorization => SignatureHeader::Authorization,
                    file::SignatureHeader::Signature => SignatureHeader::Signature,
                })
                .collect(),
            algorithms: written
                .algorithms
                .iter()
                .map(|algorithm| match algorithm {
                    file::HttpSignatureAlgorithm::RsaSha256 => Algorithm::RsaSha256,
                    file::HttpSignatureAlgorithm::RsaSha512 => Algorithm::RsaSha512,
                    file::HttpSignatureAlgorithm::Hs2019 => Algorithm::Hs2019,
                })
                .collect(),
            required: written.required.iter().map(|name| name.to_ascii_lowercase()).collect(),
            request_target: match written.request_target {
                Some(file::RequestTarget::Path) => RequestTarget::Path,
                None | Some(file::RequestTarget::PathAndQuery) => RequestTarget::PathAndQuery,
            },
            tolerance,
            keys,
        })
    }

    /// What the provider publishes, if the endpoint wants it; nothing also where a problem was found.
    fn remote_keys(&mut self, written: Option<&file::RemoteKeys>, path: &Path) -> Option<Arc<RemoteKeys>> {
        self.took_key_source = true;
        if self.written.key_source != Some(file::KeySource::Remote) {
            return None;
        }
        let Some(written) = written else {
            let place = self.path.key("key_source");
            return self.findings.problem(&place, "is `remote`, but the scheme names no `remote_keys`");
        };
        let Some(shape) = KeyIdShape::parse(&written.key_id) else {
            return self.findings.problem(&path.key("key_id"), "is not a shape of ids; write `/keys/{}`");
        };
        let base: Option<http::Uri> = written.base.parse().ok();
        let bare = base.as_ref().and_then(http::Uri::authority).is_some_and(|authority| {
            !authority.as_str().contains('@') && written.base == format!("https://{authority}")
        });
        if !bare {
            return self.findings.problem(&path.key("base"), "is not `https://host`, with nothing behind it");
        }
        let origin = Arc::new(Origin {
            base: written.base.clone(),
            ca_file: written.ca_file.as_ref().map(PathBuf::from),
            allow_private_addresses: written.allow_private_addresses == Some(true),
        });
        let mut kept = self.context.kept.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let source = (origin.as_ref().clone(), written.key_id.clone());
        let fetcher = self.context.kept.fetcher.clone();
        let ask: Ask = Arc::new(move |keys, id| fetcher.as_ref().is_some_and(|fetcher| fetcher.ask(&origin, keys, id)));
        Some(Arc::clone(kept.entry(source).or_insert_with(|| RemoteKeys::new(shape, ask))))
    }

    fn public_keys(&mut self, others: bool) -> Option<Vec<(KeyId, Key<RsaKey>)>> {
        self.took_public_keys = true;
        if self.written.public_keys.is_empty() && !others {
            return self.findings.problem(self.path, "needs a key; write one under `public_keys`");
        }
        let mut keys = Vec::new();
        for (at, written) in self.written.public_keys.iter().enumerate() {
            keys.push(self.public_key(written, &self.path.key("public_keys").index(at)));
        }
        keys.into_iter().collect()
    }

    fn public_key(&mut self, written: &file::PublicKey, path: &Path) -> Option<(KeyId, Key<RsaKey>)> {
        let (from, until) = self.window(written.from.as_deref(), written.until.as_deref(), path)?;
        let label = self.label(&written.id, &written.tags, path)?;
        let text = secret_source::public_key_text(written, path, self.findings)?;
        let allow_1024 = written.allow_rsa_1024 == Some(true);
        let key = match written.format {
            file::KeyFormat::Pem => RsaKey::from_pem(&text, allow_1024).map(|key| (key, until)),
            // A certificate ends when it says, or when the operator says, whichever is sooner.
            file::KeyFormat::X509 => RsaKey::from_certificate(&text, self.context.now.wall, allow_1024)
                .map(|(key, validity)| (key, Some(until.map_or(validity.until, |u| u.min(validity.until))))),
        };
        let place = path.key(if written.file.is_some() { "file" } else { "inline" });
        match key {
            Ok((value, until)) => Some((KeyId::parse(&written.id), Key { label, from, until, value })),
            Err(problem) => self.findings.problem(&place, problem.to_string()),
        }
    }

    /// The endpoint's secrets for one use.
    fn secrets(&mut self, wanted: file::Use, form: &file::SecretForm) -> Option<Vec<Key<Secret>>> {
        self.used.push(wanted);
        let mut keys = Vec::new();
        for (at, written) in self.written.secrets.iter().enumerate() {
            if written.r#use.is_none_or(|r#use| r#use == wanted) {
                let path = self.path.key("secrets").index(at);
                keys.push(self.secret(written, form, &path));
            }
        }
        match keys.len() {
            0 => self.findings.problem(self.path, "needs a secret; write one under `secrets`"),
            count if count > MAX_KEYS => self
                .findings
                .problem(&self.path.key("secrets"), format!("has {count} for one scheme; at most {MAX_KEYS}")),
            _ => keys.into_iter().collect(),
        }
    }

    fn secret(&mut self, written: &file::Secret, form: &file::SecretForm, path: &Path) -> Option<Key<Secret>> {
        let window = self.window(written.from.as_deref(), written.until.as_deref(), path);
        let label = self.label(&written.id, &written.tags, path);
        let value = secret_source::secret(written, form, path, self.findings);
        let (from, until) = window?;
        Some(Key { label: label?, from, until, value: value? })
    }

    fn window(
        &mut self,
        from: Option<&str>,
        until: Option<&str>,
        path: &Path,
    ) -> Option<(Option<UnixSeconds>, Option<UnixSeconds>)> {
        let mut moment = |field: &str, text: Option<&str>| match text.map(str::parse::<jiff::Timestamp>) {
            None => Some(None),
            Some(Ok(moment)) => Some(Some(UnixSeconds(moment.as_second()))),
            Some(Err(_)) => self.findings.problem(&path.key(field), "is not a moment; write `2026-12-01T00:00:00Z`"),
        };
        let (from, until) = (moment("from", from), moment("until", until));
        let (from, until) = (from?, until?);
        if let (Some(from), Some(until)) = (from, until)
            && until < from
        {
            return self.findings.problem(&path.key("until"), "is before `from`");
        }
        if until.is_some_and(|until| until < self.context.now.wall) {
            self.findings.warn(&path.key("until"), "is over; the key verifies nothing");
        }
        Some((from, until))
    }

    fn label(&mut self, id: &str, tags: &BTreeMap<String, String>, path: &Path) -> Option<Arc<Label>> {
        if id.is_empty() || id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return self
                .findings
                .problem(&path.key("id"), "is not an id; use up to 128 printable characters without spaces");
        }
        for (name, value) in tags {
            let name_is_plain = !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            let value_is_plain = value.len() <= 128 && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            if !name_is_plain || !value_is_plain {
                return self.findings.problem(
                    &path.key("tags").key(name),
                    "becomes a header; use lower-case letters, digits and `-` for its name, and up to 128 printable characters",
                );
            }
        }
        let tags = tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Arc::new(Label { id: id.to_owned(), tags }))
    }

    /// Says which secrets and keys no scheme took: an operator who wrote them believes they do something. Where a
    /// scheme did not compile, nobody knows what it would have taken.
    pub fn finish(self, compiled: bool) {
        let ambiguous = self.used.iter().collect::<std::collections::HashSet<_>>().len() > 1;
        let mut seen = std::collections::HashSet::new();
        for (at, secret) in self.written.secrets.iter().enumerate() {
            let path = self.path.key("secrets").index(at);
            if !seen.insert(secret.id.as_str()) {
                self.findings.problem::<()>(&path.key("id"), format!("`{}` is another secret's id too", secret.id));
            }
            match secret.r#use {
                _ if !compiled => None,
                None if ambiguous => self.findings.problem::<()>(&path, "serves several schemes; say which by `use:`"),
                None if self.used.is_empty() => {
                    self.findings.problem(&path, "is not used: the scheme takes `public_keys`")
                }
                Some(r#use) if !self.used.contains(&r#use) => {
                    self.findings.problem(&path.key("use"), "names a scheme that this endpoint does not have")
                }
                None | Some(_) => None,
            };
        }
        if compiled && !self.took_key_source && self.written.key_source.is_some() {
            self.findings.problem::<()>(&self.path.key("key_source"), "is not used: the scheme takes `secrets`");
        }
        if compiled && !self.took_public_keys && !self.written.public_keys.is_empty() {
            self.findings.problem::<()>(&self.path.key("public_keys"), "is not used: the scheme takes `secrets`");
        }
    }
}

/// Reads `250ms`, `30s`, `5m`, `24h` or `7d`.
pub fn duration(text: &str, path: &Path, findings: &mut Findings) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let parts = text.split_at_checked(split).and_then(|(number, unit)| number.parse::<u64>().ok().zip(Some(unit)));
    let read = match parts {
        Some((number, "ms")) => Some(Duration::from_millis(number)),
        Some((number, "s")) => Some(Duration::from_secs(number)),
        Some((number, "m")) => number.checked_mul(60).map(Duration::from_secs),
        Some((number, "h")) => number.checked_mul(3600).map(Duration::from_secs),
        Some((number, "d")) => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    };
    match read {
        Some(duration) => Some(duration),
        None => findings.problem(path, "is not a duration; write `300s`, `5m` or `24h`"),
    }
}
