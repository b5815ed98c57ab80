//! Compiles challenges and replies: what may be echoed is bounded here, once.

use super::{
    file,
    problem::{Findings, Path},
    scheme::{SchemeCompiler, encoding, hash},
};
use crate::{
    challenge::{Challenge, Charset, Derived, Echo, Function, Part, Respond, Template},
    condition::Condition,
    decision::Reply,
    received::Place,
    scheme::{
        decryption::{Decryption, Layout},
        mac::MacKey,
    },
};

/// Compiles a challenge rule, written at `path`.
pub(super) fn challenge(written: &file::Challenge, of: &mut SchemeCompiler<'_>, path: &Path) -> Option<Challenge> {
    if written.when.is_empty() {
        return of.findings.problem(&path.key("when"), "is empty; every request would be this challenge");
    }
    let when: Vec<_> =
        written.when.iter().enumerate().map(|(at, c)| condition(c, of, &path.key("when").index(at))).collect();
    let echoes: Vec<_> = written.echo.iter().map(|(name, e)| echo(name, e, of, &path.key("echo").key(name))).collect();
    let mut names: Vec<&str> = written.echo.keys().map(String::as_str).collect();
    let mut derived = Vec::new();
    for (name, written) in &written.derive {
        derived.push(derive(name, written, &names, of, &path.key("derive").key(name)));
        names.push(name);
    }
    let token = match &written.token {
        None => Some(None),
        Some(token) => of.token(token, file::Use::Challenge, &path.key("token")).map(Some),
    };
    let decrypt = match &written.decrypt {
        None => Some(None),
        Some(decrypt) => decryption(decrypt, of, &path.key("decrypt")).map(Some),
    };
    let enrol = match &written.enrol {
        None => Some(None),
        Some(file::ValuePlace { header, query, form, json }) => {
            let path = path.key("enrol");
            of.place(header.as_deref(), query.as_deref(), form.as_deref(), json.as_deref(), &path).map(Some)
        }
    };
    let respond = respond(&written.respond, &names, &path.key("respond"), of)?;
    Some(Challenge {
        decrypt: decrypt?,
        when: when.into_iter().collect::<Option<_>>()?,
        signed: written.signed == Some(true),
        token: token?,
        echoes: echoes.into_iter().collect::<Option<_>>()?,
        derived: derived.into_iter().collect::<Option<_>>()?,
        enrol: enrol?,
        respond,
    })
}

fn decryption(written: &file::Decrypt, of: &mut SchemeCompiler<'_>, path: &Path) -> Option<Decryption> {
    let place = of.place(None, written.query.as_deref(), None, written.json.as_deref(), path)?;
    let layout = match written.layout {
        file::DecryptLayout::VectorFirst => Layout::VectorFirst,
        file::DecryptLayout::Framed => Layout::Framed,
    };
    let keys = of.secrets(file::Use::Decryption, &file::SecretForm::default())?;
    Some(Decryption { place, layout, keys })
}

fn derive(
    name: &str,
    written: &file::Derive,
    names: &[&str],
    of: &mut SchemeCompiler<'_>,
    path: &Path,
) -> Option<Derived> {
    let function = match (written.hash, written.hmac) {
        (Some(of), None) => Function::Hash(hash(of)),
        (None, Some(by)) => {
            let by = hash(by);
            let key = |secret| MacKey::hmac(by, secret, false);
            let form = of.secret_form.clone();
            Function::Mac(of.mac_keys(file::Use::Hmac, &form, key)?)
        }
        _ => return of.findings.problem(path, "needs exactly one of `hash` and `hmac`"),
    };
    // Configured values first: what is left in braces after that is an echo.
    let place = path.key("of");
    let mut parts = Vec::new();
    let mut rest = written.of.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let Some((word, tail)) = after.split_once('}') else {
            return of.findings.problem(&place, "has a brace that does not close");
        };
        parts.push(Part::Text(before.to_owned()));
        parts.push(match names.iter().position(|name| *name == word) {
            Some(index) => Part::Value(index),
            None => Part::Text(of.constant(&format!("{{{word}}}"), &place)?),
        });
        rest = tail;
    }
    parts.push(Part::Text(rest.to_owned()));
    Some(Derived { name: name.to_owned(), function, of: Template(parts), encoding: encoding(written.encoding) })
}

/// Compiles a condition, written at `path`.
pub(super) fn condition(written: &file::Condition, of: &mut SchemeCompiler<'_>, path: &Path) -> Option<Condition> {
    let file::Condition { method, header, query, form, json, equals, absent, empty } = written;
    if let Some(method) = method {
        let alone = [header, query, form, json, equals].iter().all(|other| other.is_none());
        return if alone && absent.is_none() && empty.is_none() {
            Some(Condition::Method(method.clone()))
        } else {
            of.findings.problem(path, "has `method` and something else; write two conditions")
        };
    }
    let place = of.place(header.as_deref(), query.as_deref(), form.as_deref(), json.as_deref(), path)?;
    match (equals, absent, empty, place) {
        (Some(text), None, None, place) => {
            let equals = of.constant(text, &path.key("equals"))?;
            Some(Condition::Value { place, equals: Some(equals) })
        }
        (None, None, None, place) => Some(Condition::Value { place, equals: None }),
        (None, Some(true), None, place) => Some(Condition::Absent(place)),
        (None, None, Some(true), Place::Json(pointer)) => Some(Condition::Empty(pointer)),
        _ => of.findings.problem(path, "needs at most one of `equals`, `absent: true`, and for `json` `empty: true`"),
    }
}

fn echo(name: &str, written: &file::Echo, of: &mut SchemeCompiler<'_>, path: &Path) -> Option<Echo> {
    let file::Echo { header, query, form, json, body, .. } = written;
    let mut places = Vec::new();
    for (header, query, form, json) in [
        (header.as_deref(), None, None, None),
        (None, query.as_deref(), None, None),
        (None, None, form.as_deref(), None),
        (None, None, None, json.as_deref()),
    ] {
        if header.is_some() || query.is_some() || form.is_some() || json.is_some() {
            places.push(of.place(header, query, form, json, path)?);
        }
    }
    if *body == Some(true) {
        places.push(Place::Body);
    }
    if places.is_empty() {
        return of.findings.problem(path, "needs at least one of `header`, `query`, `form`, `json` and `body`");
    }
    let max_length = written.max_length.unwrap_or(256);
    if !(1..=1024).contains(&max_length) {
        return of.findings.problem(&path.key("max_length"), "is not between 1 and 1024");
    }
    let charset = match written.charset {
        None | Some(file::Charset::Token) => Charset::Token,
        Some(file::Charset::Hex) => Charset::Hex,
        Some(file::Charset::Digits) => Charset::Digits,
        Some(file::Charset::Text) => Charset::Text,
    };
    Some(Echo { name: name.to_owned(), places, charset, max_length })
}

fn respond(written: &file::Respond, echoes: &[&str], path: &Path, of: &mut SchemeCompiler<'_>) -> Option<Respond> {
    let status = written.status.unwrap_or(200);
    if !(200..=299).contains(&status) {
        return of.findings.problem(&path.key("status"), "is not between 200 and 299");
    }
    let mut headers = Vec::new();
    for (name, value) in &written.headers {
        let path = path.key("headers").key(name);
        let name = header_name(name, &path, of.findings)?;
        judge_reply_header(&name, value, &path, of.findings)?;
        headers.push((name, template(value, echoes, &path, of)?));
    }
    let body = reply_body(written.text.as_deref(), written.json.as_ref(), path, of.findings)?;
    let body = match body {
        Some((content_type, text)) => Some((content_type, template(&text, echoes, path, of)?)),
        None => None,
    };
    if body.is_some() && matches!(status, 204 | 205) {
        return of.findings.problem(&path.key("status"), "has no body; leave out `text` and `json`");
    }
    Some(Respond { status, headers, body })
}

/// What a proxy itself decides may not be set, and nothing that could end a line may.
fn judge_reply_header(name: &str, value: &str, path: &Path, findings: &mut Findings) -> Option<()> {
    let reserved = ["content-length", "transfer-encoding", "connection", "content-type", "host", "set-cookie"];
    if reserved.contains(&name) || name.starts_with("x-hookwarden-") {
        return findings.problem(path, "is not a header that a reply may set");
    }
    if !value.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return findings.problem(path, "is not printable ASCII");
    }
    Some(())
}

/// Compiles a reply without echoes.
pub(super) fn reply(written: &file::ReplyText, path: &Path, findings: &mut Findings) -> Option<Reply> {
    let status = written.status.unwrap_or(200);
    if !(200..=299).contains(&status) {
        return findings.problem(&path.key("status"), "is not between 200 and 299");
    }
    let body = reply_body(written.text.as_deref(), written.json.as_ref(), path, findings)?;
    let (headers, body) = match body {
        Some((content_type, body)) => (vec![("content-type".to_owned(), content_type.to_owned())], body),
        None => (Vec::new(), String::new()),
    };
    Some(Reply { status, headers, body })
}

/// A header's name in lower case.
pub(super) fn header_name(name: &str, path: &Path, findings: &mut Findings) -> Option<String> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => findings.problem(path, "is not a header name"),
    }
}

/// A reply's body and its type, from `text` or `json`. The outer `None` means that a problem was found.
#[expect(clippy::option_option, reason = "outer: whether it could be read; inner: whether there is a body")]
pub(super) fn reply_body(
    text: Option<&str>,
    json: Option<&serde_json::Value>,
    path: &Path,
    findings: &mut Findings,
) -> Option<Option<(&'static str, String)>> {
    match (text, json) {
        (None, None) => Some(None),
        (Some(text), None) => Some(Some(("text/plain; charset=utf-8", text.to_owned()))),
        (None, Some(json)) => Some(Some(("application/json", json.to_string()))),
        (Some(_), Some(_)) => findings.problem(path, "has both `text` and `json`; write one"),
    }
}

/// Parses `{name}` and `{setting:name}` in text. Braces that hold no word, as JSON's own do, are text.
fn template(text: &str, echoes: &[&str], path: &Path, of: &mut SchemeCompiler<'_>) -> Option<Template> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        literal.push_str(before);
        if let Some((setting, tail)) = after.split_once('}').filter(|(word, _)| word.starts_with("setting:")) {
            literal.push_str(&of.constant(&format!("{{{setting}}}"), path)?);
            rest = tail;
            continue;
        }
        let word = after
            .split_once('}')
            .filter(|(word, _)| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        if let Some((word, tail)) = word {
            let Some(index) = echoes.iter().position(|echo| *echo == word) else {
                return of.findings.problem(path, format!("has `{{{word}}}`, which `echo` does not name"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Value(index));
            rest = tail;
        } else {
            literal.push('{');
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Some(Template(parts))
}
