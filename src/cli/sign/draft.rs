//! A request while it is being made: whatever a scheme looks at is put in, and then signed. Tokens that say much have a room of
//! their own.

mod web_token;

use super::{Make, PrivateKey};
use crate::{
    challenge::Challenge,
    cli::request::SavedRequest,
    clock::Now,
    condition::Condition,
    endpoint::Endpoint,
    json::Json,
    received::{Place, Received},
    scheme::{
        Scheme,
        canonical::xml_text,
        encoding::Encoding,
        http_signature::{HttpSignature, SignatureHeader, render_parameters},
        key_ring::{KeyId, KeyRing},
        listed_headers::List,
        mac::MacKey,
        signature::Location,
        signed::{Signed, Signer, TimestampSource},
        signed_content::{Inputs, Piece},
        timestamp::render_http_date,
        token::{Token, TokenSource},
    },
    secret::{Key, Secret},
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A request that is being made.
pub(super) struct Draft<'m> {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) now: Now,
    pub(super) make: &'m Make,
}

impl Draft<'_> {
    pub(super) fn finish(self) -> anyhow::Result<SavedRequest> {
        SavedRequest::new(&self.method, &self.url, self.headers, &self.body)
    }

    fn saved(&self) -> anyhow::Result<SavedRequest> {
        SavedRequest::new(&self.method, &self.url, self.headers.clone(), &self.body)
    }

    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header))
    }

    fn set(&mut self, header: &str, value: String) {
        self.headers.push((header.to_owned(), value));
    }

    fn add_query(&mut self, name: &str, value: &str) {
        let pair: String = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        let separator = if self.url.contains('?') { '&' } else { '?' };
        self.url.push(separator);
        self.url.push_str(&pair);
    }

    fn add_field(&mut self, name: &str, value: &str) {
        let pair: String = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        if !self.body.is_empty() {
            self.body.push(b'&');
        }
        self.body.extend_from_slice(pair.as_bytes());
        if !self.has("content-type") {
            self.set("Content-Type", "application/x-www-form-urlencoded".to_owned());
        }
    }

    fn add_member(&mut self, pointer: &str, value: Value) -> anyhow::Result<()> {
        let mut json = if self.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&self.body).context("the scheme wants a JSON body")?
        };
        put(&mut json, pointer, value);
        self.body = json.to_string().into_bytes();
        if !self.has("content-type") {
            self.set("Content-Type", "application/json".to_owned());
        }
        Ok(())
    }

    /// Puts a value where a scheme looks for one.
    fn put(&mut self, place: &Place, value: &str) -> anyhow::Result<()> {
        match place {
            Place::Header(name) => self.set(name, value.to_owned()),
            Place::Query(name) => self.add_query(name, value),
            Place::Form(name) => self.add_field(name, value),
            Place::Json(pointer) => self.add_member(pointer, Value::String(value.to_owned()))?,
            Place::Body => self.body = value.as_bytes().to_vec(),
        }
        Ok(())
    }

    fn reads(&self, place: &Place) -> anyhow::Result<bool> {
        let saved = self.saved()?;
        let delivery = saved.delivery(None);
        let received = Received::new(&delivery, &self.body);
        Ok(!matches!(received.read(place), crate::delivery::Found::Absent))
    }

    fn key<'k, T>(&self, keys: &'k [Key<T>]) -> anyhow::Result<&'k Key<T>> {
        let wanted = self.make.secret.as_deref();
        keys.iter()
            .find(|key| wanted.map_or_else(|| key.is_active(self.now), |id| key.label.id == id))
            .ok_or_else(|| anyhow!("no such secret is active"))
    }

    fn private_key(&self) -> anyhow::Result<PrivateKey> {
        let path = self.make.private_key.as_ref();
        PrivateKey::read(path.ok_or_else(|| anyhow!("this scheme signs with a private key; give `--private-key`"))?)
    }

    /// The id under which the request names its key.
    fn key_id(&self, keys: &KeyRing) -> Option<String> {
        let first = keys.configured.first().and_then(|(id, _)| match id {
            KeyId::Exact(id) => Some(id.clone()),
            KeyId::Prefix(_) => None,
        });
        self.make.key_id.clone().or(first)
    }

    pub(super) fn sign(&mut self, scheme: &Scheme) -> anyhow::Result<()> {
        match scheme {
            Scheme::Signed(signed) => self.sign_content(signed),
            Scheme::Jwt(jwt) => self.issue(jwt),
            Scheme::Token(token) => self.show_token(token),
            Scheme::HttpSignature(signature) => self.sign_http(signature),
            Scheme::HttpMessageSignature(scheme) => {
                let private = if scheme.secrets.is_empty() { Some(self.private_key()?) } else { None };
                let key_id = self.key_id(&scheme.keys).unwrap_or_else(|| "sign".to_owned());
                if scheme.covers_body && !self.has("content-digest") {
                    let digest = Encoding::Base64.encode(&Sha256::digest(&self.body));
                    self.set("Content-Digest", format!("sha-256=:{digest}:"));
                }
                let saved = self.saved()?;
                let delivery = saved.delivery(None);
                let received = Received::new(&delivery, &self.body);
                let input = scheme.input_to_sign(&key_id, self.now);
                let base = scheme
                    .base_to_sign(&input, &received)
                    .map_err(|rejection| anyhow!("the request cannot be signed: {}", rejection.as_str()))?;
                let signature = match private {
                    Some(private) => {
                        let algorithm = scheme.algorithms.iter().find_map(|a| private.sign(*a, &base).ok());
                        algorithm.ok_or_else(|| anyhow!("the private key fits none of the scheme's algorithms"))?
                    }
                    None => self.key(&scheme.secrets)?.value.tag(&[base.into()]).bytes().to_vec(),
                };
                self.set("Signature-Input", format!("sig1={input}"));
                self.set("Signature", format!("sig1=:{}:", Encoding::Base64.encode(&signature)));
                Ok(())
            }
            Scheme::Basic(basic) => {
                let credentials = Encoding::Base64.encode(self.key(&basic.keys)?.value.expose());
                self.set("Authorization", format!("Basic {credentials}"));
                Ok(())
            }
            // The address is the proof, and no request can bring its own.
            Scheme::IpLease(_) | Scheme::Networks(_) => Ok(()),
            Scheme::AllOf(members) => members.iter().try_for_each(|member| self.sign(member)),
            Scheme::AnyOf(members) => members.first().map_or(Ok(()), |member| self.sign(member)),
            Scheme::Cases(cases) => {
                let saved = self.saved()?;
                let delivery = saved.delivery(None);
                let received = Received::new(&delivery, &self.body);
                let holds = |when: &[Condition]| when.iter().all(|condition| condition.holds(&received));
                match (cases.iter().find(|(when, _)| holds(when)), cases.first()) {
                    (Some((_, scheme)), _) => self.sign(scheme),
                    (None, Some((when, scheme))) => {
                        self.meet(when)?;
                        self.sign(scheme)
                    }
                    (None, None) => Ok(()),
                }
            }
        }
    }

    /// Makes conditions hold.
    fn meet(&mut self, when: &[Condition]) -> anyhow::Result<()> {
        for condition in when {
            match condition {
                Condition::Method(method) => self.method.clone_from(method),
                Condition::Value { place, equals: Some(value) } => {
                    let value = value.clone();
                    self.put(place, &value)?;
                }
                Condition::Empty(pointer) => self.add_member(pointer, Value::Array(Vec::new()))?,
                Condition::Value { equals: None, .. } | Condition::Absent(_) => {}
            }
        }
        Ok(())
    }

    fn sign_content(&mut self, signed: &Signed) -> anyhow::Result<()> {
        let timestamp = signed.timestamp.as_ref().map(|rule| (rule.unit.render(self.now.wall), &rule.source));
        if let Some((text, TimestampSource::At(place))) = &timestamp
            && !self.reads(place)?
        {
            if let Place::Json(pointer) = place {
                let number = text.parse::<i64>().map_or_else(|_| Value::from(text.as_str()), Value::from);
                self.add_member(pointer, number)?;
            } else {
                self.put(place, text)?;
            }
        }
        for piece in signed.content.pieces().iter().flat_map(Piece::flatten) {
            if let Piece::Xml(name) = piece
                && xml_text(&self.body, name).is_err()
            {
                self.body = format!("<xml><{name}>{}</{name}></xml>", random_word()?).into_bytes();
            }
            if let Piece::At(place) = piece
                && !self.reads(place)?
                && signed.body_digest.as_ref().is_none_or(|digest| digest.place != *place)
            {
                let word = format!("msg_{}", random_word()?);
                self.put(place, &word)?;
            }
        }
        if let Some(rule) = &signed.listed_headers
            && let List::At(place) = &rule.list
            && !self.reads(place)?
        {
            let names = rule.required.join(&rule.separator);
            self.put(place, &names)?;
        }
        if let Some(digest) = &signed.body_digest {
            let text = digest.encoding.encode(digest.hash.of(&self.body).bytes());
            self.put(&digest.place, &format!("{}{text}", digest.prefix))?;
        }
        if let Signer::PrivateKey { key_id: Some(source), keys, .. } = &signed.signer
            && source.member.is_none()
            && !self.reads(&source.place)?
            && let Some(id) = self.key_id(keys)
        {
            self.put(&source.place, &id)?;
        }
        match &signed.each {
            None => {
                let signature = self.signature(signed, timestamp.as_ref(), None)?;
                self.present(signed, timestamp.as_ref(), &signature)
            }
            Some(pointer) => self.sign_items(signed, pointer),
        }
    }

    /// The signature over the request as it now is, or over one item of it.
    fn signature(
        &self,
        signed: &Signed,
        timestamp: Option<&(String, &TimestampSource)>,
        item: Option<&Json>,
    ) -> anyhow::Result<Vec<u8>> {
        let saved = self.saved()?;
        let delivery = saved.delivery(None);
        let received = Received::new(&delivery, &self.body);
        let refused =
            |rejection: crate::decision::Rejection| anyhow!("the request cannot be signed: {}", rejection.as_str());
        let list = match &signed.listed_headers {
            Some(rule) => Some((rule, rule.find(&received).map_err(refused)?)),
            None => None,
        };
        let text = timestamp.map_or("", |(text, _)| text.as_str());
        let mut inputs = Inputs {
            timestamp: text.as_bytes(),
            item,
            listed_headers: list.as_ref().map(|(rule, list)| (*rule, &**list)),
            ..Inputs::default()
        };
        match &signed.signer {
            Signer::Mac { keys, .. } => {
                let key: &MacKey = &self.key(keys)?.value;
                inputs.secret = key.secret().map(Secret::expose).unwrap_or_default();
                let content = signed.content.resolve(&received, inputs).map_err(refused)?;
                Ok(key.tag(&content).bytes().to_vec())
            }
            Signer::PrivateKey { algorithm, .. } => {
                let content = signed.content.resolve(&received, inputs).map_err(refused)?;
                self.private_key()?.sign(*algorithm, &content.concat())
            }
        }
    }

    fn present(
        &mut self,
        signed: &Signed,
        timestamp: Option<&(String, &TimestampSource)>,
        signature: &[u8],
    ) -> anyhow::Result<()> {
        let source = &signed.signature;
        let fields: Vec<(&str, &str)> = match timestamp {
            Some((text, TimestampSource::Field(name))) => vec![(name, text)],
            _ => Vec::new(),
        };
        let positional: Vec<&str> = match timestamp {
            Some((text, TimestampSource::Entry(_))) => vec![text],
            _ => Vec::new(),
        };
        let mut value = source.render(signature, &fields, &positional);
        if let Some(member) = &source.member {
            let mut object = serde_json::json!({ member: value });
            if let Signer::PrivateKey { key_id: Some(id), keys, .. } = &signed.signer
                && let (Some(member), Some(id)) = (&id.member, self.key_id(keys))
            {
                put(&mut object, &format!("/{member}"), Value::String(id));
            }
            value = Encoding::Base64.encode(object.to_string().as_bytes());
        }
        match &source.location {
            Location::At(place) => self.put(place, &value),
            Location::Headers(names) => {
                let name = names.first().cloned().unwrap_or_default();
                self.put(&Place::Header(name), &value)
            }
            Location::NumberedHeader(stem) => self.put(&Place::Header(format!("{stem}1")), &value),
            Location::Item(_) => bail!("the signature stands in items, and the scheme names none"),
        }
    }

    /// Signs every item of an array in the body.
    fn sign_items(&mut self, signed: &Signed, pointer: &str) -> anyhow::Result<()> {
        let Location::Item(place) = &signed.signature.location else {
            bail!("the scheme signs items, but its signature does not stand in them");
        };
        let mut json: Value = if self.body.is_empty() {
            let mut json = Value::Null;
            put(&mut json, pointer, serde_json::json!([{}]));
            json
        } else {
            serde_json::from_slice(&self.body).context("the scheme wants a JSON body")?
        };
        let items = json.pointer_mut(pointer).and_then(Value::as_array_mut);
        for item in items.ok_or_else(|| anyhow!("the body has no array at `{pointer}`"))? {
            let read = Json::parse(item.to_string().as_bytes()).ok_or_else(|| anyhow!("an item is not JSON"))?;
            let signature = self.signature(signed, None, Some(&read))?;
            put(item, place, Value::String(signed.signature.render(&signature, &[], &[])));
        }
        self.body = json.to_string().into_bytes();
        Ok(())
    }

    fn show_token(&mut self, token: &Token) -> anyhow::Result<()> {
        let text = token_text(&self.key(&token.keys)?.value)?;
        match &token.source {
            TokenSource::At { place, auth_scheme: Some(word) } => self.put(place, &format!("{word} {text}")),
            TokenSource::At { place, auth_scheme: None } => self.put(place, &text),
            TokenSource::EachJson(pointer) => self.put(&Place::Json(pointer.replace('*', "0")), &text),
        }
    }

    fn sign_http(&mut self, scheme: &HttpSignature) -> anyhow::Result<()> {
        let private = self.private_key()?;
        let key_id = self.key_id(&scheme.keys).ok_or_else(|| anyhow!("the key's id is a pattern; give `--key-id`"))?;
        let requires = |name: &str| scheme.required.iter().any(|required| required == name);
        if requires("date") && !self.has("date") {
            self.set("Date", render_http_date(self.now.wall));
        }
        if requires("digest") && !self.has("digest") {
            self.set("Digest", format!("SHA-256={}", Encoding::Base64.encode(&Sha256::digest(&self.body))));
        }
        let request = self.saved()?;
        let content = scheme
            .content_to_sign(&request.delivery(None))
            .map_err(|rejection| anyhow!("the request cannot be signed: {}", rejection.as_str()))?;
        let algorithm = scheme.algorithms.first().copied().ok_or_else(|| anyhow!("the scheme has no algorithm"))?;
        let signature = private.sign(algorithm.of_key(), &content)?;
        let parameters = render_parameters(&key_id, algorithm, &scheme.required, &signature);
        match scheme.headers.first() {
            Some(SignatureHeader::Signature) => self.set("Signature", parameters),
            Some(SignatureHeader::Authorization) | None => self.set("Authorization", format!("Signature {parameters}")),
        }
        Ok(())
    }

    /// The provider's handshake.
    pub(super) fn challenge(mut self, endpoint: &Endpoint) -> anyhow::Result<SavedRequest> {
        let lease = endpoint
            .scheme
            .flatten()
            .find_map(|scheme| if let Scheme::IpLease(lease) = scheme { Some(lease) } else { None });
        if let Some(lease) = lease {
            let text = token_text(&self.key(&lease.keys)?.value)?;
            "GET".clone_into(&mut self.method);
            self.body.clear();
            self.add_query(&lease.query, &text);
            return self.finish();
        }
        let rule = endpoint.challenges.first().ok_or_else(|| anyhow!("this endpoint has no handshake"))?;
        self.pose(rule)?;
        if rule.signed {
            self.sign(&endpoint.scheme)?;
        }
        self.finish()
    }

    /// Fills in whatever a rule looks at.
    fn pose(&mut self, rule: &Challenge) -> anyhow::Result<()> {
        if rule.decrypt.is_some() {
            bail!("this handshake comes encrypted, which is not made here");
        }
        self.meet(&rule.when)?;
        if let Some(token) = &rule.token {
            self.show_token(token)?;
        }
        for echo in &rule.echoes {
            let word = random_word()?;
            let word = word.get(..echo.max_length.min(word.len())).unwrap_or_default().to_owned();
            for place in &echo.places {
                self.put(place, &word)?;
            }
        }
        Ok(())
    }
}

/// Puts a value at a pointer, making objects on the way.
fn put(json: &mut Value, pointer: &str, value: Value) {
    let mut inner = json;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if let (Value::Array(items), Ok(index)) = (&mut *inner, token.parse::<usize>())
            && index < items.len()
        {
            let Value::Array(items) = inner else { return };
            let Some(item) = items.get_mut(index) else { return };
            inner = item;
            continue;
        }
        if token == "0" && !inner.is_object() {
            *inner = serde_json::json!([Value::Null]);
            let Some(item) = inner.get_mut(0) else { return };
            inner = item;
            continue;
        }
        if !inner.is_object() {
            *inner = serde_json::json!({});
        }
        let Value::Object(members) = inner else { return };
        inner = members.entry(token).or_insert(Value::Null);
    }
    *inner = value;
}

fn token_text(secret: &Secret) -> anyhow::Result<String> {
    String::from_utf8(secret.expose().to_vec()).map_err(|_| anyhow!("the token is not text"))
}

fn random_word() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(const_hex::encode(bytes))
}
