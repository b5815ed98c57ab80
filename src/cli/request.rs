//! A request saved as JSON: what `sign` prints and `verify` reads.

use crate::delivery::{Body, Delivery, Headers};
use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::{io::Read as _, net::IpAddr, path::Path};

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRequest {
    /// The method.
    pub(super) method: String,
    /// The whole URL.
    pub(super) url: String,
    /// Header lines.
    #[serde(default)]
    pub(super) headers: Vec<(String, String)>,
    /// The body, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<String>,
    /// The body, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body_base64: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_ip: Option<IpAddr>,
    /// The body's bytes, once decoded.
    #[serde(skip)]
    pub(super) bytes: Vec<u8>,
    /// Header names in lower case, once read.
    #[serde(skip)]
    names: Vec<String>,
    /// Path and query, and the authority.
    #[serde(skip)]
    place: (String, String),
}

impl SavedRequest {
    /// A request that is being made.
    pub(super) fn new(method: &str, url: &str, headers: Vec<(String, String)>, bytes: &[u8]) -> anyhow::Result<Self> {
        let mut request = Self { method: method.to_owned(), url: url.to_owned(), headers, ..Self::default() };
        match std::str::from_utf8(bytes) {
            Ok(text) => request.body = Some(text.to_owned()),
            Err(_) => request.body_base64 = Some(STANDARD.encode(bytes)),
        }
        request.prepare()?;
        Ok(request)
    }

    /// Reads a file, or standard input for `-`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text)?;
        } else {
            text = std::fs::read_to_string(path)?;
        }
        let mut request: Self = serde_json::from_str(&text).context("is not a saved request")?;
        request.prepare()?;
        Ok(request)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.bytes = match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => bail!("has both `body` and `body_base64`"),
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).context("`body_base64` is not base64")?,
            (None, None) => Vec::new(),
        };
        let uri: http::Uri = self.url.parse().context("`url` is not a URL")?;
        let authority = uri.authority().context("`url` has no host")?.as_str().to_owned();
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        self.place = (target, authority);
        self.names = self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        Ok(())
    }

    /// The delivery this is, as a proxy that names `endpoint` would ask about it.
    pub(super) fn delivery<'a>(&'a self, endpoint: Option<&'a str>) -> Delivery<'a> {
        let lines = self.names.iter().zip(&self.headers).map(|(name, (_, value))| (name.as_bytes(), value.as_bytes()));
        Delivery {
            method: &self.method,
            target: &self.place.0,
            host: &self.place.1,
            headers: Headers::from_lines(lines.collect()),
            body: Body::Whole(&self.bytes),
            peer: self.client_ip,
            route_endpoint: endpoint,
        }
    }
}
