//! Makes requests that verify: the other half of every scheme, for trying a configuration out.

use super::{complain, misuse, print, request::SavedRequest};
use crate::{
    challenge::{Challenge, Condition, Place},
    clock::{Clock, Now, UnixSeconds},
    config::{self, Context},
    endpoint::Endpoint,
    scheme::{
        Scheme,
        hmac::{Hmac, TimestampSource},
        http_signature::{Algorithm, HttpSignature, KeyId, SignatureHeader, render_parameters},
        public_key::RsaHash,
        signature::Encoding,
        signed_content::Piece,
        timestamp::render_http_date,
        token::{Token, TokenSource},
    },
    secret::{Key, Secret},
};
use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use rsa::{
    PrivateKey,
    pkcs1::DecodeRsaPrivateKey as _,
    pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use sha2::{Digest as _, Sha256};
use std::{path::PathBuf, process::ExitCode, sync::Arc};

#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    #[command(flatten)]
    pub(super) make: Make,
    /// How the request is written
    #[arg(long, value_enum, default_value_t = Format::Headers)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// The headers, one a line
    Headers,
    /// A curl command
    Curl,
    /// What `verify --request` reads
    Json,
}

/// What to sign, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Make {
    /// Sign for an endpoint of this configuration
    #[arg(long, value_name = "FILE", requires = "endpoint", conflicts_with = "provider")]
    config: Option<PathBuf>,
    /// The endpoint
    #[arg(long, value_name = "NAME", requires = "config")]
    endpoint: Option<String>,
    /// The secret's id; default: the first that is active
    #[arg(long, value_name = "ID", requires = "config")]
    secret: Option<String>,
    /// Sign as this preset
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    provider: Option<String>,
    /// A file with the secret
    #[arg(long, value_name = "FILE", requires = "provider")]
    secret_file: Option<String>,
    /// An environment variable with the secret
    #[arg(long, value_name = "NAME", requires = "provider", conflicts_with = "secret_file")]
    secret_env: Option<String>,
    /// A PEM private key, for schemes with public keys
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The key id that the request names
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// Where the request goes
    #[arg(long)]
    pub(super) url: String,
    /// The method; default: the endpoint's first that takes a body
    #[arg(long)]
    method: Option<String>,
    /// A further header, as `Name: value`
    #[arg(long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// The body
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,
    /// A file with the body
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// Make the provider's handshake request instead
    #[arg(long)]
    challenge: bool,
    /// Sign as if it were this moment, in seconds since 1970
    #[arg(long, value_name = "UNIX", allow_negative_numbers = true)]
    now: Option<i64>,
}

/// Why a request could not be made: the arguments (an exit code that was explained), or something else.
pub(super) enum Failure {
    Explained(ExitCode),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    pub(super) fn into_result(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Explained(code) => Ok(code),
            Self::Other(error) => Err(error),
        }
    }
}

impl Sign {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let request = match self.make.request() {
            Ok(request) => request,
            Err(failure) => return failure.into_result(),
        };
        print(&match self.format {
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&request)?),
            Format::Curl => curl(&request),
            Format::Headers => request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
        })
    }
}

/// A request as a command for a POSIX shell.
fn curl(request: &SavedRequest) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = format!("curl --request {} {}", request.method, quote(&request.url));
    for (name, value) in &request.headers {
        command.push_str(&format!(" \\\n  --header {}", quote(&format!("{name}: {value}"))));
    }
    match (&request.body, &request.body_base64) {
        (Some(text), _) if text.is_empty() => {}
        (Some(text), _) => command.push_str(&format!(" \\\n  --data-binary {}", quote(text))),
        (None, Some(base64)) => {
            command = format!("printf %s {} | base64 -d | {command} \\\n  --data-binary @-", quote(base64));
        }
        (None, None) => {}
    }
    command.push('\n');
    command
}

impl Make {
    /// Makes the request.
    pub(super) fn request(&self) -> Result<SavedRequest, Failure> {
        let clock = self.now.map_or_else(Clock::system, |now| Clock::fixed(UnixSeconds(now)));
        let endpoint = self.endpoint(clock.now())?;
        let body = match (&self.body, &self.body_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(file)) => std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?,
            (None, None) => Vec::new(),
        };
        let mut headers = Vec::new();
        for line in &self.headers {
            let (name, value) = line.split_once(':').ok_or_else(|| anyhow!("`{line}` is not `Name: value`"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let takes_body = endpoint.methods.iter().find(|m| matches!(m.as_str(), "POST" | "PUT" | "PATCH"));
        let mut draft = Draft {
            method: self.method.as_ref().or(takes_body).map_or("POST", String::as_str).to_owned(),
            url: self.url.clone(),
            headers,
            body,
            now: clock.now(),
            make: self,
        };
        if self.challenge {
            return Ok(draft.challenge(&endpoint)?);
        }
        draft.sign(&endpoint.scheme)?;
        Ok(draft.finish()?)
    }

    /// The endpoint to sign for: one of a configuration, or one made up for a preset.
    fn endpoint(&self, now: Now) -> Result<Arc<Endpoint>, Failure> {
        let context = Context::new(now);
        let (name, loaded) = match (&self.config, &self.endpoint, &self.provider) {
            (Some(path), Some(name), _) => (name.as_str(), config::load(path, &context)),
            (_, _, Some(provider)) => ("sign", self.made_up(provider, &context)?),
            _ => return Err(Failure::Explained(misuse("give `--config` and `--endpoint`, or `--provider`"))),
        };
        let compiled = loaded.map_err(|problems| Failure::Explained(complain(&problems)))?.compiled;
        compiled
            .endpoints
            .named(name)
            .cloned()
            .ok_or_else(|| Failure::Explained(misuse(&format!("`{name}` is not an endpoint of the configuration"))))
    }

    fn made_up(&self, provider: &str, context: &Context) -> anyhow::Result<Result<config::Loaded, config::Problems>> {
        let mut endpoint = serde_json::json!({ "provider": provider });
        let set = |endpoint: &mut serde_json::Value, key: &str, value: serde_json::Value| {
            if let Some(object) = endpoint.as_object_mut() {
                object.insert(key.to_owned(), value);
            }
        };
        if let Some(file) = &self.secret_file {
            set(&mut endpoint, "secrets", serde_json::json!([{ "id": "sign", "file": file, "allow_weak": true }]));
        }
        if let Some(env) = &self.secret_env {
            set(&mut endpoint, "secrets", serde_json::json!([{ "id": "sign", "env": env, "allow_weak": true }]));
        }
        if let Some(key) = &self.private_key {
            let public = read_private_key(key)?.to_public_key().to_public_key_pem(LineEnding::LF)?;
            let id = self.key_id.as_deref().unwrap_or("sign");
            set(&mut endpoint, "public_keys", serde_json::json!([{ "id": id, "inline": public, "format": "pem" }]));
        }
        let text = serde_json::json!({ "endpoints": { "sign": endpoint } }).to_string();
        Ok(config::parse("arguments", text.as_bytes(), context))
    }
}

fn read_private_key(path: &std::path::Path) -> anyhow::Result<PrivateKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    PrivateKey::from_pkcs8_pem(&text)
        .or_else(|_| PrivateKey::from_pkcs1_pem(&text))
        .map_err(|_| anyhow!("`{}` is not a PEM RSA private key", path.display()))
}

/// A request that is being made.
struct Draft<'m> {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    now: Now,
    make: &'m Make,
}

impl Draft<'_> {
    fn finish(self) -> anyhow::Result<SavedRequest> {
        SavedRequest::new(&self.method, &self.url, self.headers, &self.body)
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

    fn key<'k, T>(&self, keys: &'k [Key<T>]) -> anyhow::Result<&'k Key<T>> {
        let wanted = self.make.secret.as_deref();
        keys.iter()
            .find(|key| wanted.map_or_else(|| key.is_active(self.now), |id| key.label.id == id))
            .ok_or_else(|| anyhow!("no such secret is active"))
    }

    fn sign(&mut self, scheme: &Scheme) -> anyhow::Result<()> {
        match scheme {
            Scheme::Hmac(hmac) => self.sign_hmac(hmac),
            Scheme::Token(token) => self.show_token(token),
            Scheme::HttpSignature(signature) => self.sign_http(signature),
            Scheme::Basic(basic) => {
                let credentials = Encoding::Base64.encode(self.key(&basic.keys)?.value.expose());
                self.set("Authorization", format!("Basic {credentials}"));
                Ok(())
            }
            // The address is the proof, and no request can bring its own.
            Scheme::IpLease(_) => Ok(()),
            Scheme::AllOf(members) => members.iter().try_for_each(|member| self.sign(member)),
            Scheme::AnyOf(members) => members.first().map_or(Ok(()), |member| self.sign(member)),
        }
    }

    fn sign_hmac(&mut self, hmac: &Hmac) -> anyhow::Result<()> {
        let timestamp = hmac.timestamp.as_ref().map(|rule| (rule.unit.render(self.now.wall), &rule.source));
        if let Some((text, TimestampSource::Header(name))) = &timestamp
            && !self.has(name)
        {
            self.set(name, text.clone());
        }
        for piece in hmac.content.pieces() {
            if let Piece::Header(name) = piece
                && !self.has(name)
            {
                self.set(name, format!("msg_{}", random_word()?));
            }
        }
        let text = timestamp.as_ref().map_or("", |(text, _)| text.as_str());
        let request = SavedRequest::new(&self.method, &self.url, self.headers.clone(), &self.body)?;
        let delivery = request.delivery(None);
        let content = hmac
            .content
            .resolve(&delivery, &self.body, text.as_bytes())
            .map_err(|rejection| anyhow!("the request cannot be signed: {}", rejection.as_str()))?;
        let tag = self.key(&hmac.keys)?.value.tag(&content);
        let fields: Vec<(&str, &str)> = match &timestamp {
            Some((text, TimestampSource::Field(name))) => vec![(name, text)],
            Some((_, TimestampSource::Header(_))) | None => Vec::new(),
        };
        let value = hmac.signature.render(&tag, &fields);
        self.set(&hmac.signature.header, value);
        Ok(())
    }

    fn show_token(&mut self, token: &Token) -> anyhow::Result<()> {
        let text = token_text(&self.key(&token.keys)?.value)?;
        match &token.source {
            TokenSource::Header { name, auth_scheme: Some(word) } => self.set(name, format!("{word} {text}")),
            TokenSource::Header { name, auth_scheme: None } => self.set(name, text),
            TokenSource::Query(name) => self.add_query(name, &text),
        }
        Ok(())
    }

    fn sign_http(&mut self, scheme: &HttpSignature) -> anyhow::Result<()> {
        let path = self
            .make
            .private_key
            .as_ref()
            .ok_or_else(|| anyhow!("this scheme signs with a private key; give `--private-key`"))?;
        let private = read_private_key(path)?;
        let first = scheme.keys.first().and_then(|(id, _)| match id {
            KeyId::Exact(id) => Some(id.clone()),
            KeyId::Prefix(_) => None,
        });
        let key_id =
            self.make.key_id.clone().or(first).ok_or_else(|| anyhow!("the key's id is a pattern; give `--key-id`"))?;
        let requires = |name: &str| scheme.required.iter().any(|required| required == name);
        if requires("date") && !self.has("date") {
            self.set("Date", render_http_date(self.now.wall));
        }
        if requires("digest") && !self.has("digest") {
            self.set("Digest", format!("SHA-256={}", Encoding::Base64.encode(&Sha256::digest(&self.body))));
        }
        let request = SavedRequest::new(&self.method, &self.url, self.headers.clone(), &self.body)?;
        let content = scheme
            .content_to_sign(&request.delivery(None))
            .map_err(|rejection| anyhow!("the request cannot be signed: {}", rejection.as_str()))?;
        let algorithm = scheme.algorithms.first().copied().unwrap_or(Algorithm::RsaSha256);
        let signature = rsa_signature(&private, algorithm, &content)?;
        let parameters = render_parameters(&key_id, algorithm, &scheme.required, &signature);
        match scheme.headers.first() {
            Some(SignatureHeader::Signature) => self.set("Signature", parameters),
            Some(SignatureHeader::Authorization) | None => self.set("Authorization", format!("Signature {parameters}")),
        }
        Ok(())
    }

    /// The provider's handshake.
    fn challenge(mut self, endpoint: &Endpoint) -> anyhow::Result<SavedRequest> {
        let lease = endpoint.scheme.flatten().find_map(|scheme| match scheme {
            Scheme::IpLease(lease) => Some(lease),
            Scheme::Hmac(_)
            | Scheme::Token(_)
            | Scheme::HttpSignature(_)
            | Scheme::Basic(_)
            | Scheme::AllOf(_)
            | Scheme::AnyOf(_) => None,
        });
        if let Some(lease) = lease {
            let text = token_text(&self.key(&lease.keys)?.value)?;
            "GET".clone_into(&mut self.method);
            self.body.clear();
            if let TokenSource::Query(name) = &lease.source {
                self.add_query(name, &text);
            }
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
        let mut json = serde_json::Value::Null;
        for condition in &rule.when {
            match condition {
                Condition::Method(method) => self.method.clone_from(method),
                Condition::Value { place, equals: Some(value) } => self.place(place, value, &mut json),
                Condition::Value { equals: None, .. } => {}
            }
        }
        for echo in &rule.echoes {
            let word = random_word()?;
            for place in &echo.places {
                self.place(place, &word, &mut json);
            }
        }
        if !json.is_null() {
            self.body = json.to_string().into_bytes();
            if !self.has("content-type") {
                self.set("Content-Type", "application/json".to_owned());
            }
        }
        Ok(())
    }

    fn place(&mut self, place: &Place, value: &str, json: &mut serde_json::Value) {
        match place {
            Place::Header(name) => self.set(name, value.to_owned()),
            Place::Query(name) => self.add_query(name, value),
            Place::Json(pointer) => {
                let mut inner = json;
                for token in pointer.split('/').skip(1) {
                    if !inner.is_object() {
                        *inner = serde_json::json!({});
                    }
                    let serde_json::Value::Object(members) = inner else { return };
                    inner =
                        members.entry(token.replace("~1", "/").replace("~0", "~")).or_insert(serde_json::Value::Null);
                }
                *inner = serde_json::Value::String(value.to_owned());
            }
        }
    }
}

fn token_text(secret: &Secret) -> anyhow::Result<String> {
    String::from_utf8(secret.expose().to_vec()).map_err(|_| anyhow!("the token is not text"))
}

fn rsa_signature(key: &PrivateKey, algorithm: Algorithm, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    use rsa::pkcs1v15::SigningKey;
    use rsa::signature::{SignatureEncoding as _, Signer as _};
    let signature = match algorithm.hash() {
        RsaHash::Sha256 => SigningKey::<Sha256>::new(key.clone()).try_sign(content),
        RsaHash::Sha512 => SigningKey::<sha2::Sha512>::new(key.clone()).try_sign(content),
    };
    match signature {
        Ok(signature) => Ok(signature.to_vec()),
        Err(_) => bail!("the key cannot sign"),
    }
}

fn random_word() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(const_hex::encode(bytes))
}
