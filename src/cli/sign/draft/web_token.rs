//! A JSON Web Token as whoever sends the request would issue it: the header, the claims or what stands for them, and the
//! signature. Where a token is shown in the request is said by the scheme; other signatures are not made here.

use super::{Draft, put};
use crate::{
    decision::Rejection,
    received::Received,
    scheme::{
        algorithm::Algorithm,
        encoding::Encoding,
        jwt::{Claim, Issuer, Jwt, TokenPlace},
        listed_headers::List,
        signed_content::Inputs,
    },
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

impl Draft<'_> {
    pub(super) fn issue(&mut self, jwt: &Jwt) -> anyhow::Result<()> {
        self.set_listed_headers(jwt);
        let saved = self.saved()?;
        let delivery = saved.delivery(None);
        let received = Received::new(&delivery, &self.body);
        let head = base64(self.token_header(jwt, &received)?.to_string().as_bytes());
        let payload = base64(&self.token_payload(jwt, &received)?);
        let signature = self.token_signature(jwt, &format!("{head}.{payload}"))?;
        let shown = if jwt.detached.is_some() { "" } else { payload.as_str() };
        let token = format!("{head}.{shown}.{}", base64(&signature));
        match &jwt.source {
            TokenPlace::Body => self.body = token.into_bytes(),
            TokenPlace::At(place, None) => self.put(place, &token)?,
            TokenPlace::At(place, Some(word)) => self.put(place, &format!("{word} {token}"))?,
        }
        Ok(())
    }

    /// Headers that a detached signature lists are there.
    fn set_listed_headers(&mut self, jwt: &Jwt) {
        let listed = jwt.listed_headers.as_ref().filter(|_| jwt.detached.is_some());
        for name in listed.into_iter().flat_map(|rule| &rule.required) {
            if !self.has(name) {
                self.set(name, self.now.wall.0.to_string());
            }
        }
    }

    fn token_header(&self, jwt: &Jwt, received: &Received<'_>) -> anyhow::Result<Value> {
        let alg = match &jwt.issuer {
            Issuer::Mac(hashes) => hashes.first().and_then(|(hash, _)| hash.jws_name()),
            Issuer::PrivateKey { algorithms, .. } => algorithms.first().and_then(|a| a.jws_name()),
            Issuer::Chain { .. } => bail!("this scheme's tokens carry a chain of certificates, which is not made here"),
        };
        let mut header = serde_json::json!({});
        put(&mut header, "/alg", Value::from(alg));
        if let Issuer::PrivateKey { keys, .. } = &jwt.issuer
            && let Some(id) = self.key_id(keys)
        {
            put(&mut header, "/kid", Value::String(id));
        }
        for claim in &jwt.header {
            put(&mut header, &claim.pointer, Value::String(text(claim, received)?));
        }
        if let Some(rule) = &jwt.listed_headers
            && let List::Protected(name) = &rule.list
        {
            put(&mut header, &format!("/{name}"), Value::String(rule.required.join(&rule.separator)));
        }
        Ok(header)
    }

    /// The claims, or what a detached signature is over.
    fn token_payload(&self, jwt: &Jwt, received: &Received<'_>) -> anyhow::Result<Vec<u8>> {
        let claims = self.claims(jwt, received)?;
        let Some(content) = &jwt.detached else { return Ok(claims.to_string().into_bytes()) };
        let listed = jwt.listed_headers.as_ref().map(|rule| (rule, rule.required.join(&rule.separator)));
        let listed_headers = listed.as_ref().map(|(rule, list)| (*rule, list.as_str()));
        let inputs = Inputs { listed_headers, ..Inputs::default() };
        Ok(content.resolve(received, inputs).map_err(refused)?.concat())
    }

    fn claims(&self, jwt: &Jwt, received: &Received<'_>) -> anyhow::Result<Value> {
        let mut claims = serde_json::json!({ "iat": self.now.wall.0, "exp": self.now.wall.0.saturating_add(300) });
        for claim in &jwt.claims {
            put(&mut claims, &claim.pointer, Value::String(text(claim, received)?));
        }
        if let Some(rule) = &jwt.body_digest {
            let digest = rule.encoding.encode(rule.hash.of(&self.body).bytes());
            put(&mut claims, &rule.pointer, Value::String(digest));
        }
        if matches!(jwt.source, TokenPlace::Body) && !self.body.is_empty() {
            put(&mut claims, "/data", Value::String(String::from_utf8_lossy(&self.body).into_owned()));
        }
        Ok(claims)
    }

    fn token_signature(&self, jwt: &Jwt, input: &str) -> anyhow::Result<Vec<u8>> {
        match &jwt.issuer {
            Issuer::Mac(hashes) => {
                let (_, keys) = hashes.first().ok_or_else(|| anyhow!("the scheme has no hash"))?;
                Ok(self.key(keys)?.value.tag(&[input.as_bytes().into()]).bytes().to_vec())
            }
            Issuer::PrivateKey { algorithms, .. } => {
                let algorithm: Algorithm = *algorithms.first().ok_or_else(|| anyhow!("the scheme has no algorithm"))?;
                self.private_key()?.sign(algorithm, input.as_bytes())
            }
            Issuer::Chain { .. } => Ok(Vec::new()),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    Encoding::Base64Url.encode(bytes)
}

fn refused(rejection: Rejection) -> anyhow::Error {
    anyhow!("the request cannot be signed: {}", rejection.as_str())
}

/// What a claim has to say.
fn text(claim: &Claim, received: &Received<'_>) -> anyhow::Result<String> {
    let wanted = claim.wanted(received).map_err(refused)?;
    let bytes = wanted.into_iter().next().ok_or_else(|| anyhow!("a claim has no value"))?;
    String::from_utf8(bytes).context("a claim is not text")
}
