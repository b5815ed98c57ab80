//! Compiles secrets and keys: fetched, judged, labelled.

use super::{MAX_KEYS, SchemeCompiler};
use crate::{
    clock::UnixSeconds,
    config::{file, problem::Path, secret_source},
    json::Json,
    key_fetcher::{Document, Origin},
    scheme::{
        algorithm::Algorithm,
        key_ring::{KeyId, KeyRing},
        mac::MacKey,
        public_key::{KeyFormat, KeyPolicy, PublicKey},
        remote_keys::{Ask, Ids, KeyIdShape, RemoteKeys},
    },
    secret::{Key, Label, Secret},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
};
use x509_cert::{Certificate, der::DecodePem};

impl SchemeCompiler<'_> {
    /// The keys of a scheme: those that are configured, and where the endpoint wants it those that are published.
    pub(super) fn key_ring(
        &mut self,
        algorithms: &[Algorithm],
        remote: Option<&file::RemoteKeys>,
        path: &Path,
    ) -> Option<KeyRing> {
        self.took_key_source = true;
        let wants_remote = self.written.key_source == Some(file::KeySource::Remote);
        let remote = if wants_remote { Some(self.remote_keys(algorithms, remote, path)?) } else { None };
        let configured = self.public_keys(algorithms, wants_remote)?;
        Some(KeyRing { configured, remote })
    }

    fn remote_keys(
        &mut self,
        algorithms: &[Algorithm],
        written: Option<&file::RemoteKeys>,
        path: &Path,
    ) -> Option<Arc<RemoteKeys>> {
        let Some(written) = written else {
            let place = self.path.key("key_source");
            return self.findings.problem(&place, "is `remote`, but the scheme names no `remote_keys`");
        };
        let (ids, base, shape) = match (&written.base, &written.key_id, &written.url, &written.jwks) {
            (Some(base), Some(shape), None, None) => {
                if !is_bare_host(base) {
                    return self.findings.problem(&path.key("base"), "is not `https://host`, with nothing behind it");
                }
                (self.shape(shape, &path.key("key_id"))?, base.clone(), shape.clone())
            }
            (None, None, Some(shape), None) => {
                if !shape.starts_with("https://") {
                    return self.findings.problem(&path.key("url"), "is not `https://host/…`");
                }
                (self.shape(shape, &path.key("url"))?, String::new(), shape.clone())
            }
            (None, None, None, Some(address)) => {
                let address = self.constant(address, &path.key("jwks"))?;
                let uri: Option<http::Uri> = address.parse().ok();
                let plain = uri.is_some_and(|uri| {
                    uri.scheme_str() == Some("https") && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
                });
                if !plain {
                    return self.findings.problem(&path.key("jwks"), "is not `https://host/path`");
                }
                (Ids::InSet, address, String::new())
            }
            _ => {
                return self.findings.problem(path, "needs `base` and `key_id`, or `url`, or `jwks`, and only that");
            }
        };
        let document = match (written.format, &ids) {
            (_, Ids::InSet) => Document::Set,
            (None, _) => Document::Key(KeyFormat::X509),
            (Some(format), _) => match single(format) {
                Some(format) => Document::Key(format),
                None => return self.findings.problem(&path.key("format"), "is a set; write `jwks: https://…`"),
            },
        };
        let origin = Arc::new(Origin {
            base,
            document,
            algorithms: algorithms.to_vec(),
            ca_file: written.ca_file.as_ref().map(PathBuf::from),
            allow_private_addresses: written.allow_private_addresses == Some(true),
        });
        let source = (origin.as_ref().clone(), shape);
        let fetcher = self.context.kept.fetcher.clone();
        let ask: Ask = Arc::new(move |keys, id| fetcher.as_ref().is_some_and(|fetcher| fetcher.ask(&origin, keys, id)));
        let mut kept = self.context.kept.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = kept.entry(source).or_insert_with(|| {
            let keys = RemoteKeys::new(ids, ask);
            keys.prepare();
            keys
        });
        Some(Arc::clone(keys))
    }

    fn shape(&mut self, text: &str, path: &Path) -> Option<Ids> {
        match KeyIdShape::parse(text) {
            Some(shape) => Some(Ids::Shaped(shape)),
            None => self.findings.problem(path, "is not a shape of ids; write `/keys/{}` or `https://host/{}.pem`"),
        }
    }

    fn public_keys(&mut self, algorithms: &[Algorithm], others: bool) -> Option<Vec<(KeyId, Key<PublicKey>)>> {
        self.took_public_keys = true;
        if self.written.public_keys.is_empty() && !others {
            return self.findings.problem(self.path, "needs a key; write one under `public_keys`");
        }
        let mut keys = Vec::new();
        for (at, written) in self.written.public_keys.iter().enumerate() {
            let path = self.path.key("public_keys").index(at);
            let is_set = matches!(written.format, file::KeyFormat::Jwks);
            keys.push(if is_set {
                self.key_set(written, algorithms, &path)
            } else {
                self.public_key(written, algorithms, &path).map(|key| vec![key])
            });
        }
        keys.into_iter().collect::<Option<Vec<_>>>().map(|keys| keys.into_iter().flatten().collect())
    }

    fn public_key(
        &mut self,
        written: &file::PublicKey,
        algorithms: &[Algorithm],
        path: &Path,
    ) -> Option<(KeyId, Key<PublicKey>)> {
        let (from, until) = self.window(written.from.as_deref(), written.until.as_deref(), path)?;
        let label = self.label(&written.id, &written.tags, path)?;
        let text = secret_source::public_key_text(written, path, self.findings)?;
        let policy = policy(written);
        let format = single(written.format)?;
        // A certificate ends when it says, or when the operator says, whichever is sooner.
        let key = if format == KeyFormat::X509 {
            PublicKey::from_certificate(&text, self.context.now.wall, algorithms, policy)
                .map(|(key, validity)| (key, Some(until.map_or(validity.until, |u| u.min(validity.until)))))
        } else {
            PublicKey::read(&text, format, algorithms, policy).map(|key| (key, until))
        };
        match key {
            Ok((value, until)) => Some((KeyId::parse(&written.id), Key { label, from, until, value })),
            Err(problem) => self.findings.problem(&source_of(written, path), problem.to_string()),
        }
    }

    /// The keys of a set that fit the scheme, under their own ids.
    fn key_set(
        &mut self,
        written: &file::PublicKey,
        algorithms: &[Algorithm],
        path: &Path,
    ) -> Option<Vec<(KeyId, Key<PublicKey>)>> {
        let (from, until) = self.window(written.from.as_deref(), written.until.as_deref(), path)?;
        self.label(&written.id, &written.tags, path)?;
        let text = secret_source::public_key_text(written, path, self.findings)?;
        let place = source_of(written, path);
        let json = Json::parse(text.as_bytes());
        let Some(Json::Array(jwks)) = json.as_ref().and_then(|json| json.at("/keys")) else {
            return self.findings.problem(&place, "is not a JSON Web Key Set");
        };
        let mut keys = Vec::new();
        for jwk in jwks {
            let Some(id) = jwk.text_at("/kid") else { continue };
            let Ok(value) = PublicKey::from_jwk(jwk, algorithms, policy(written)) else { continue };
            let label = self.label(id, &written.tags, path)?;
            let id = KeyId::Exact(id.to_owned());
            if keys.iter().any(|(other, _)| *other == id) {
                return self.findings.problem(&place, "holds two keys with one id");
            }
            keys.push((id, Key { label, from, until, value }));
        }
        if keys.is_empty() {
            return self.findings.problem(&place, "holds no key with an id that fits the scheme's algorithms");
        }
        Some(keys)
    }

    /// The certificates that chains may end at.
    pub(super) fn authorities(&mut self) -> Option<Vec<Key<Certificate>>> {
        self.took_public_keys = true;
        let mut roots = Vec::new();
        for (at, written) in self.written.public_keys.iter().enumerate() {
            let path = self.path.key("public_keys").index(at);
            let (from, until) = self.window(written.from.as_deref(), written.until.as_deref(), &path)?;
            let label = self.label(&written.id, &written.tags, &path)?;
            let text = secret_source::public_key_text(written, &path, self.findings)?;
            match Certificate::from_pem(&text) {
                Ok(value) => roots.push(Key { label, from, until, value }),
                Err(_) => {
                    return self.findings.problem(&source_of(written, &path), "is not a PEM certificate");
                }
            }
        }
        if roots.is_empty() {
            return self.findings.problem(self.path, "needs an authority's certificate; write one under `public_keys`");
        }
        Some(roots)
    }

    /// The endpoint's secrets for one use, as keys of a MAC.
    pub(in crate::config) fn mac_keys(
        &mut self,
        wanted: file::Use,
        form: &file::SecretForm,
        key: impl Fn(Secret) -> Option<MacKey>,
    ) -> Option<Vec<Key<MacKey>>> {
        let secrets = self.secrets(wanted, form)?;
        // A keyed state is large, and mostly there is one: room for four is what collecting would begin with.
        let mut keys = Vec::with_capacity(secrets.len());
        for Key { label, from, until, value } in secrets {
            keys.push(Key { label, from, until, value: key(value)? });
        }
        Some(keys)
    }

    /// The endpoint's secrets for one use.
    pub(in crate::config) fn secrets(
        &mut self,
        wanted: file::Use,
        form: &file::SecretForm,
    ) -> Option<Vec<Key<Secret>>> {
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

    pub(super) fn window(
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

    pub(super) fn label(&mut self, id: &str, tags: &BTreeMap<String, String>, path: &Path) -> Option<Arc<Label>> {
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
}

/// `https://host`, perhaps with a port.
fn is_bare_host(base: &str) -> bool {
    let uri: Option<http::Uri> = base.parse().ok();
    uri.as_ref()
        .and_then(http::Uri::authority)
        .is_some_and(|authority| !authority.as_str().contains('@') && base == format!("https://{authority}"))
}

/// The format of one key; a set is none.
fn single(format: file::KeyFormat) -> Option<KeyFormat> {
    match format {
        file::KeyFormat::Pem => Some(KeyFormat::Pem),
        file::KeyFormat::X509 => Some(KeyFormat::X509),
        file::KeyFormat::Jwk => Some(KeyFormat::Jwk),
        file::KeyFormat::SpkiBase64 => Some(KeyFormat::SpkiBase64),
        file::KeyFormat::RawHex => Some(KeyFormat::RawHex),
        file::KeyFormat::RawBase64 => Some(KeyFormat::RawBase64),
        file::KeyFormat::Jwks => None,
    }
}

fn policy(written: &file::PublicKey) -> KeyPolicy {
    KeyPolicy {
        allow_rsa_1024: written.allow_rsa_1024 == Some(true),
        allow_small_exponent: written.allow_small_exponent == Some(true),
    }
}

fn source_of(written: &file::PublicKey, path: &Path) -> Path {
    path.key(if written.file.is_some() { "file" } else { "inline" })
}
