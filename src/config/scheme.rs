//! Compiles schemes: templates parsed, secrets fetched, keys judged.

mod keys;
mod signed;
mod token;

use super::{
    challenge::{condition, header_name, reply},
    compile::Context,
    file,
    problem::{Findings, Path},
    secret_source,
};
use crate::{
    decision::Reply,
    delivery::ClientAddress,
    received::Place,
    scheme::{
        Scheme,
        basic::Basic,
        encoding::Encoding,
        http_signature::{Algorithm, HttpSignature, RequestTarget, SignatureHeader},
        ip_lease::IpLease,
        mac::Hash,
        network::Networks,
        signed_content::{SignedContent, TemplateProblem, Vocabulary},
    },
    secret::{Key, Label, LearnedSecret, Secret},
};
use std::{
    collections::BTreeMap,
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
    /// What the preset's settings are, for people.
    described: &'a BTreeMap<String, String>,
    /// The secret that the provider hands over, where it does.
    learned: Option<Arc<LearnedSecret>>,
    /// How the provider hands out the secret of its signatures; handshakes use the same.
    pub(super) secret_form: file::SecretForm,
    pub(super) findings: &'a mut Findings,
    used: Vec<file::Use>,
    took_public_keys: bool,
    took_key_source: bool,
}

impl<'a> SchemeCompiler<'a> {
    /// A compiler for the endpoint `name`, which stands at `path`.
    #[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    pub fn new(
        name: &'a str,
        client: ClientAddress,
        context: &'a Context,
        path: &'a Path,
        written: &'a file::Endpoint,
        described: &'a BTreeMap<String, String>,
        learned: Option<Arc<LearnedSecret>>,
        findings: &'a mut Findings,
    ) -> Self {
        Self {
            name,
            client,
            context,
            path,
            written,
            described,
            learned,
            secret_form: file::SecretForm::default(),
            findings,
            used: Vec::new(),
            took_public_keys: false,
            took_key_source: false,
        }
    }

    /// Compiles one scheme, written at `path`.
    pub fn compile(&mut self, scheme: &file::Scheme, path: &Path) -> Option<Scheme> {
        let there = [
            scheme.hmac.is_some(),
            scheme.keyed_hash.is_some(),
            scheme.public_key.is_some(),
            scheme.jwt.is_some(),
            scheme.token.is_some(),
            scheme.ip_lease.is_some(),
            scheme.http_signature.is_some(),
            scheme.http_message_signature.is_some(),
            scheme.basic.is_some(),
            scheme.ip_allow.is_some(),
            scheme.all_of.is_some(),
            scheme.any_of.is_some(),
            scheme.cases.is_some(),
        ];
        if there.iter().filter(|there| **there).count() != 1 {
            return self.findings.problem(
                path,
                "needs exactly one of `hmac`, `keyed_hash`, `public_key`, `jwt`, `token`, `ip_lease`, `http_signature`, `http_message_signature`, `basic`, `ip_allow`, `all_of`, `any_of` and `cases`",
            );
        }
        if let Some(mac) = &scheme.hmac {
            return self.mac(mac, file::Use::Hmac, &path.key("hmac")).map(Scheme::Signed);
        }
        if let Some(mac) = &scheme.keyed_hash {
            return self.mac(mac, file::Use::KeyedHash, &path.key("keyed_hash")).map(Scheme::Signed);
        }
        if let Some(signature) = &scheme.public_key {
            return self.public_key_signature(signature, &path.key("public_key")).map(Scheme::Signed);
        }
        if let Some(jwt) = &scheme.jwt {
            return self.jwt(jwt, &path.key("jwt")).map(Scheme::Jwt);
        }
        if let Some(token) = &scheme.token {
            return self.token(token, file::Use::Token, &path.key("token")).map(Scheme::Token);
        }
        if let Some(lease) = &scheme.ip_lease {
            return self.ip_lease(lease, &path.key("ip_lease")).map(Scheme::IpLease);
        }
        if let Some(signature) = &scheme.http_signature {
            return self.http_signature(signature, &path.key("http_signature")).map(Scheme::HttpSignature);
        }
        if let Some(signature) = &scheme.http_message_signature {
            let path = path.key("http_message_signature");
            return self.http_message_signature(signature, &path).map(Scheme::HttpMessageSignature);
        }
        if scheme.basic.is_some() {
            let keys = self.secrets(file::Use::Basic, &file::SecretForm::default())?;
            return Some(Scheme::Basic(Basic { keys }));
        }
        if let Some(allow) = &scheme.ip_allow {
            return self.networks(allow, &path.key("ip_allow")).map(Scheme::Networks);
        }
        if let Some(members) = &scheme.all_of {
            return self.members(members, &path.key("all_of")).map(Scheme::AllOf);
        }
        if let Some(members) = &scheme.any_of {
            return self.members(members, &path.key("any_of")).map(Scheme::AnyOf);
        }
        self.cases(scheme.cases.as_deref().unwrap_or_default(), &path.key("cases")).map(Scheme::Cases)
    }

    fn members(&mut self, members: &[file::Scheme], path: &Path) -> Option<Vec<Scheme>> {
        if members.len() < 2 {
            return self.findings.problem(path, "needs at least two schemes");
        }
        let compiled: Vec<Option<Scheme>> =
            members.iter().enumerate().map(|(at, member)| self.compile(member, &path.index(at))).collect();
        compiled.into_iter().collect()
    }

    fn cases(
        &mut self,
        written: &[file::Case],
        path: &Path,
    ) -> Option<Vec<(Vec<crate::condition::Condition>, Scheme)>> {
        if written.is_empty() {
            return self.findings.problem(path, "is empty");
        }
        let mut cases = Vec::new();
        for (at, case) in written.iter().enumerate() {
            let path = path.index(at);
            let mut when = Vec::new();
            for (at, written) in case.when.iter().enumerate() {
                when.push(condition(written, self, &path.key("when").index(at)));
            }
            let scheme = self.compile(&case.scheme, &path.key("scheme"));
            cases.push(when.into_iter().collect::<Option<Vec<_>>>().zip(scheme));
        }
        cases.into_iter().collect()
    }

    fn networks(&mut self, written: &file::IpAllow, path: &Path) -> Option<Networks> {
        let path = path.key("networks");
        if written.networks.is_empty() {
            return self.findings.problem(&path, "is empty");
        }
        let mut networks = Vec::new();
        for (at, text) in written.networks.iter().enumerate() {
            let network = text
                .parse::<ipnet::IpNet>()
                .ok()
                .or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from));
            match network {
                Some(network) => networks.push(network),
                None => {
                    self.findings
                        .problem::<()>(&path.index(at), "is not a network; write `203.0.113.0/24` or an address");
                }
            }
        }
        (networks.len() == written.networks.len()).then_some(Networks { networks, client: self.client })
    }

    /// Exactly one place, of those that a value may stand in.
    pub(super) fn place(
        &mut self,
        header: Option<&str>,
        query: Option<&str>,
        form: Option<&str>,
        json: Option<&str>,
        path: &Path,
    ) -> Option<Place> {
        match (header, query, form, json) {
            (Some(header), None, None, None) => {
                header_name(header, &path.key("header"), self.findings).map(Place::Header)
            }
            (None, Some(query), None, None) => Some(Place::Query(query.to_owned())),
            (None, None, Some(form), None) => Some(Place::Form(form.to_owned())),
            (None, None, None, Some(json)) => self.pointer(json, &path.key("json")).map(Place::Json),
            _ => self.findings.problem(path, "needs exactly one place: `header`, `query`, `form` or `json`"),
        }
    }

    /// A JSON pointer that is not the whole.
    pub(super) fn pointer(&mut self, text: &str, path: &Path) -> Option<String> {
        if text.starts_with('/') {
            Some(text.to_owned())
        } else {
            self.findings.problem(path, "is not a JSON pointer; write `/challenge`")
        }
    }

    /// Parses a template of request pieces.
    pub(super) fn template(&mut self, text: &str, path: &Path) -> Option<SignedContent> {
        let vocabulary =
            Vocabulary { settings: Some(&self.written.settings), public_url: self.written.public_url.as_deref() };
        match SignedContent::parse(text, vocabulary) {
            Ok(content) => Some(content),
            Err(TemplateProblem::Unknown(piece)) => self.findings.problem(
                path,
                format!(
                    "has `{piece}`; known are `{{body}}`, `{{timestamp}}`, `{{method}}`, `{{target}}`, `{{header:NAME}}` and others that the documentation lists"
                ),
            ),
            Err(TemplateProblem::NoSetting(name)) => {
                let text = format!("needs `{name}`: {}", self.described.get(&name).map_or("the scheme names it", |d| d));
                self.findings.problem(&self.path.key("settings"), text)
            }
            Err(TemplateProblem::NoPublicUrl) => self.findings.problem(
                &self.path.key("public_url"),
                "is needed: the provider signs the address it was given; write `https://host/path`",
            ),
        }
    }

    /// A text in which only configured values may be named.
    pub(super) fn constant(&mut self, text: &str, path: &Path) -> Option<String> {
        let template = self.template(text, path)?;
        match template.constant() {
            Some(text) => Some(text),
            None => self.findings.problem(path, "may name `{setting:NAME}` and `{public_url}`, and nothing else"),
        }
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
            query: written.query.clone(),
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
        let required: Vec<String> = written.required.iter().map(|name| name.to_ascii_lowercase()).collect();
        let requires = |names: &[&str]| required.iter().any(|required| names.contains(&required.as_str()));
        let covers_body = self.judge_components(
            (requires(&["digest"]), "digest", written.leaves_body_unsigned == Some(true)),
            (requires(&["date", "x-date", "(created)"]), "date"),
            path,
        );
        let tolerance = self.tolerance(written.tolerance.as_deref(), &path.key("tolerance"))?;
        let algorithms: Vec<Algorithm> = written
            .algorithms
            .iter()
            .map(|algorithm| match algorithm {
                file::HttpSignatureAlgorithm::RsaSha256 => Algorithm::RsaSha256,
                file::HttpSignatureAlgorithm::RsaSha512 => Algorithm::RsaSha512,
                file::HttpSignatureAlgorithm::Hs2019 => Algorithm::Hs2019,
            })
            .collect();
        let mut of_keys: Vec<_> = algorithms.iter().map(|algorithm| algorithm.of_key()).collect();
        of_keys.dedup();
        let keys = self.key_ring(&of_keys, written.remote_keys.as_ref(), &path.key("remote_keys"))?;
        Some(HttpSignature {
            headers: written
                .headers
                .iter()
                .map(|header| match header {
                    file::SignatureHeader::Authorization => SignatureHeader::Authorization,
                    file::SignatureHeader::Signature => SignatureHeader::Signature,
                })
                .collect(),
            algorithms,
            required,
            covers_body,
            request_target: match written.request_target {
                Some(file::RequestTarget::Path) => RequestTarget::Path,
                None | Some(file::RequestTarget::PathAndQuery) => RequestTarget::PathAndQuery,
            },
            tolerance,
            keys,
        })
    }

    /// A signature over chosen components must cover the body, by its digest, and a moment; whoever means less says
    /// so. Says whether it covers the body.
    pub(super) fn judge_components(
        &mut self,
        (digest, name, leaves_body_unsigned): (bool, &str, bool),
        (moment, moment_name): (bool, &str),
        path: &Path,
    ) -> bool {
        let place = path.key("required");
        if !digest && !leaves_body_unsigned {
            self.findings.problem::<()>(
                &place,
                format!("leaves out `{name}`; anybody could change the body. Say `leaves_body_unsigned: true` if the provider signs no more"),
            );
        }
        if !moment {
            self.findings.problem::<()>(&place, format!("leaves out `{moment_name}`; a delivery would never grow old"));
        }
        digest
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

/// The hash that is meant.
pub(super) fn hash(written: file::Hash) -> Hash {
    match written {
        file::Hash::Md5 => Hash::Md5,
        file::Hash::Sha1 => Hash::Sha1,
        file::Hash::Sha256 => Hash::Sha256,
        file::Hash::Sha384 => Hash::Sha384,
        file::Hash::Sha512 => Hash::Sha512,
    }
}

/// The encoding that is meant.
pub(super) fn encoding(written: file::Encoding) -> Encoding {
    match written {
        file::Encoding::Hex => Encoding::Hex,
        file::Encoding::Base64 => Encoding::Base64,
        file::Encoding::Base64url => Encoding::Base64Url,
    }
}
