//! Makes requests that verify: the other half of every scheme, for trying a configuration out.

mod draft;
mod private_key;

use super::{complain, misuse, print, request::SavedRequest};
use crate::{
    clock::{Clock, Now, UnixSeconds},
    config::{self, Context},
    endpoint::Endpoint,
};
use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use draft::Draft;
use private_key::PrivateKey;
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
    /// A value that the preset asks for, as `name=value`
    #[arg(long = "setting", value_name = "PAIR", requires = "provider")]
    settings: Vec<String>,
    /// The address that the provider was given, for schemes that sign it; default: `--url` without its query
    #[arg(long, value_name = "URL", requires = "provider")]
    public_url: Option<String>,
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
        let url = self.public_url.as_deref().or_else(|| self.url.split('?').next()).unwrap_or_default();
        let mut settings = serde_json::Map::new();
        for pair in &self.settings {
            let (name, value) = pair.split_once('=').ok_or_else(|| anyhow!("`{pair}` is not `name=value`"))?;
            settings.insert(name.to_owned(), value.into());
        }
        let mut endpoint = serde_json::json!({ "provider": provider, "public_url": url, "settings": settings });
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
            let public = PrivateKey::read(key)?.public_pem()?;
            let id = self.key_id.as_deref().unwrap_or("sign");
            set(&mut endpoint, "public_keys", serde_json::json!([{ "id": id, "inline": public, "format": "pem" }]));
        }
        let text = serde_json::json!({ "endpoints": { "sign": endpoint } }).to_string();
        Ok(config::parse("arguments", text.as_bytes(), context))
    }
}
