//! Fetches secrets and keys from where the configuration says they are.
//!
//! A secret goes from its file or variable straight into a wiped buffer; it never passes through the YAML tree
//! unless the operator wrote it there. Nothing about its content is ever part of a problem's text.

use super::{
    file::{self, SecretEncoding, SecretForm},
    problem::{Findings, Path},
};
use crate::secret::Secret;
use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

/// Fewer bytes than this are refused.
const REFUSED_BELOW: usize = 8;
/// Fewer bytes than this are remarked on.
const REMARKED_BELOW: usize = 16;
/// Longest secret or key text read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Words people leave in place of a secret, in lower case.
const PLACEHOLDERS: &[&str] = &[
    "changeme",
    "change-me",
    "change_me",
    "mysecret",
    "my-secret",
    "my_secret",
    "your-secret",
    "your_secret",
    "yoursecret",
    "your-secret-here",
    "your_webhook_secret",
    "webhook_secret",
    "whsec_your_secret",
    "password",
    "password1",
    "12345678",
    "testsecret",
    "placeholder",
    "supersecret",
    "secretsecret",
    "it's a secret to everybody",
];

/// Providers write base64 with and without padding; the trailing bits must be zero either way.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a secret; `form` says how the provider hands it out.
pub fn secret(written: &file::Secret, form: &SecretForm, path: &Path, findings: &mut Findings) -> Option<Secret> {
    let sources = [written.file.is_some(), written.env.is_some(), written.inline.is_some()];
    if sources.iter().filter(|there| **there).count() != 1 {
        return findings.problem(path, "needs exactly one of `file`, `env` and `inline`");
    }
    let (text, path) = match (&written.file, &written.env, &written.inline) {
        (Some(name), _, _) => (from_file(name, &path.key("file"), findings)?, path.key("file")),
        (_, Some(name), _) => (from_env(name, &path.key("env"), findings)?, path.key("env")),
        (_, _, Some(text)) => {
            findings.warn(&path.key("inline"), "is a secret in the configuration; prefer `file`");
            (Zeroizing::new(text.0.clone().into_bytes()), path.key("inline"))
        }
        (None, None, None) => return None,
    };
    let text = judge_text(text, written, &path, findings)?;
    let bytes = decode(&text, written, form, &path, findings)?;
    judge_length(&bytes, written, &path, findings)?;
    // Some providers key with a hash of what they hand out.
    match form.digest {
        Some(digest) => Some(Secret::new(super::scheme::hash(digest).of(&bytes).bytes().to_vec())),
        None => Some(Secret::new(bytes.to_vec())),
    }
}

/// Reads a password. Whoever set it knows how weak it is.
pub fn password(written: &file::SecretSource, path: &Path, findings: &mut Findings) -> Option<Secret> {
    let (text, path) = match (&written.file, &written.env) {
        (Some(name), None) => (from_file(name, &path.key("file"), findings)?, path.key("file")),
        (None, Some(name)) => (from_env(name, &path.key("env"), findings)?, path.key("env")),
        _ => return findings.problem(path, "needs exactly one of `file` and `env`"),
    };
    match std::str::from_utf8(&text) {
        Ok("") => findings.problem(&path, "is empty"),
        Ok(_) => Some(Secret::new(text.to_vec())),
        Err(_) => findings.problem(&path, "is not text"),
    }
}

/// Reads certificates in PEM.
pub fn certificates(name: &str, path: &Path, findings: &mut Findings) -> Option<Vec<u8>> {
    let text = read_bounded(name, path, findings)?;
    match x509_cert::Certificate::load_pem_chain(&text) {
        Ok(certificates) if !certificates.is_empty() => Some(text.to_vec()),
        Ok(_) | Err(_) => findings.problem(path, format!("`{name}` holds no certificate")),
    }
}

/// Reads a token of hookwarden's own, which a client sends in a header.
pub fn own_token(written: file::OwnToken, path: &Path, findings: &mut Findings) -> Option<Secret> {
    let file::OwnToken { file, env, inline, allow_weak } = written;
    let written = file::Secret { file, env, inline, allow_weak, ..file::Secret::default() };
    let token = secret(&written, &SecretForm::default(), path, findings)?;
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        return findings.problem(path, "holds what a header cannot carry; use printable ASCII without spaces");
    }
    Some(token)
}

/// Reads a public key's text.
pub fn public_key_text(written: &file::PublicKey, path: &Path, findings: &mut Findings) -> Option<String> {
    match (&written.file, &written.inline) {
        (Some(name), None) => {
            let bytes = read_bounded(name, &path.key("file"), findings)?;
            match String::from_utf8(bytes.to_vec()) {
                Ok(text) => Some(text),
                Err(_) => findings.problem(&path.key("file"), format!("`{name}` is not text")),
            }
        }
        (None, Some(text)) => Some(text.clone()),
        _ => findings.problem(path, "needs exactly one of `file` and `inline`"),
    }
}

fn from_file(name: &str, path: &Path, findings: &mut Findings) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = read_bounded(name, path, findings)?;
    // Every editor and `echo` ends a file with a newline that nobody means. Exactly one goes; more is said.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        findings.warn(path, format!("`{name}` ends in a newline, which is not part of the secret"));
    }
    Some(bytes)
}

fn read_bounded(name: &str, path: &Path, findings: &mut Findings) -> Option<Zeroizing<Vec<u8>>> {
    findings.files.insert(name.into());
    match std::fs::metadata(name) {
        // Reading a pipe or a device may never end.
        Ok(metadata) if !metadata.is_file() => findings.problem(path, format!("`{name}` is not a regular file")),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            findings.problem(path, format!("`{name}` is longer than {MAX_BYTES} bytes"))
        }
        Ok(_) => match std::fs::read(name) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(error) => findings.problem(path, format!("`{name}` cannot be read: {error}")),
        },
        Err(error) => findings.problem(path, format!("`{name}` cannot be read: {error}")),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where secrets enter from the environment")]
fn from_env(name: &str, path: &Path, findings: &mut Findings) -> Option<Zeroizing<Vec<u8>>> {
    match std::env::var(name) {
        Ok(text) => Some(Zeroizing::new(text.into_bytes())),
        Err(std::env::VarError::NotPresent) => findings.problem(path, format!("the variable `{name}` is not set")),
        Err(std::env::VarError::NotUnicode(_)) => findings.problem(path, format!("the variable `{name}` is not UTF-8")),
    }
}

fn judge_text(
    text: Zeroizing<Vec<u8>>,
    written: &file::Secret,
    path: &Path,
    findings: &mut Findings,
) -> Option<Zeroizing<Vec<u8>>> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return findings.problem(path, "is empty; an empty secret is a secret everybody knows");
    }
    if text.first().is_some_and(u8::is_ascii_whitespace) || text.last().is_some_and(u8::is_ascii_whitespace) {
        findings.warn(path, "begins or ends with white space, which is part of the secret");
    }
    let lower = String::from_utf8_lossy(&text).trim().to_lowercase();
    let unexpanded = (lower.starts_with("${") || lower.starts_with("{{") || lower.starts_with('<'))
        && (lower.ends_with('}') || lower.ends_with('>'));
    let repeated = lower.len() > 1 && lower.chars().all(|c| lower.starts_with(c));
    let placeholder = PLACEHOLDERS.contains(&lower.as_str()) || unexpanded || repeated;
    if placeholder && written.allow_weak != Some(true) {
        return findings.problem(path, "is a placeholder; write the provider's secret");
    }
    Some(text)
}

fn decode(
    text: &[u8],
    written: &file::Secret,
    form: &SecretForm,
    path: &Path,
    findings: &mut Findings,
) -> Option<Zeroizing<Vec<u8>>> {
    let text = form.prefix.as_ref().and_then(|prefix| text.strip_prefix(prefix.as_bytes())).unwrap_or(text);
    let (decoded, name) = match written.encoding.or(form.encoding).unwrap_or(SecretEncoding::Utf8) {
        SecretEncoding::Utf8 => (Some(text.to_vec()), "utf8"),
        SecretEncoding::Base64 => (BASE64.decode(text).ok(), "base64"),
        SecretEncoding::Hex => (const_hex::decode(text).ok().filter(|_| !text.starts_with(b"0x")), "hex"),
    };
    match decoded {
        Some(bytes) => Some(Zeroizing::new(bytes)),
        None => findings.problem(path, format!("is not {name}; give `encoding:` if the secret is written otherwise")),
    }
}

fn judge_length(bytes: &[u8], written: &file::Secret, path: &Path, findings: &mut Findings) -> Option<()> {
    let allowed = written.allow_weak == Some(true);
    match bytes.len() {
        0 => findings.problem(path, "is empty once decoded; an empty secret is a secret everybody knows"),
        length if length < REFUSED_BELOW && !allowed => {
            findings.problem(path, format!("has {length} bytes; at least {REFUSED_BELOW} are needed, 32 are good"))
        }
        length if length < REMARKED_BELOW => {
            findings.warn(path, format!("has only {length} bytes; 32 are good"));
            Some(())
        }
        _ => Some(()),
    }
}

/// A random token of 24 bytes, in hex.
pub fn random_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes)?;
    Ok(const_hex::encode(bytes))
}
