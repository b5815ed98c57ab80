//! Compiles challenges and replies: what may be echoed is bounded here, once.

use super::{
    file,
    problem::{Findings, Path},
};
use crate::{
    challenge::{Challenge, Charset, Condition, Echo, Part, Place, Respond, Template},
    decision::Reply,
};

/// Compiles a challenge rule, written at `path`.
pub(super) fn challenge(written: &file::Challenge, path: &Path, findings: &mut Findings) -> Option<Challenge> {
    if written.when.is_empty() {
        return findings.problem(&path.key("when"), "is empty; every request would be this challenge");
    }
    let when: Vec<_> =
        written.when.iter().enumerate().map(|(at, c)| condition(c, &path.key("when").index(at), findings)).collect();
    let echoes: Vec<_> =
        written.echo.iter().map(|(name, e)| echo(name, e, &path.key("echo").key(name), findings)).collect();
    let names: Vec<&str> = written.echo.keys().map(String::as_str).collect();
    let respond = respond(&written.respond, &names, &path.key("respond"), findings)?;
    Some(Challenge {
        when: when.into_iter().collect::<Option<_>>()?,
        signed: written.signed == Some(true),
        echoes: echoes.into_iter().collect::<Option<_>>()?,
        respond,
    })
}

fn condition(written: &file::Condition, path: &Path, findings: &mut Findings) -> Option<Condition> {
    let file::Condition { method, header, query, json, equals } = written;
    match (method, header, query, json) {
        (Some(method), None, None, None) if equals.is_none() => Some(Condition::Method(method.clone())),
        (None, _, _, _) => {
            let mut places = places(header.as_deref(), query.as_deref(), json.as_deref(), path, findings)?;
            match (places.pop(), places.is_empty()) {
                (Some(place), true) => Some(Condition::Value { place, equals: equals.clone() }),
                _ => findings.problem(path, "needs exactly one of `method`, `header`, `query` and `json`"),
            }
        }
        _ => findings.problem(
            path,
            "needs exactly one of `method`, `header`, `query` and `json`; `equals` goes with the last three",
        ),
    }
}

fn places(
    header: Option<&str>,
    query: Option<&str>,
    json: Option<&str>,
    path: &Path,
    findings: &mut Findings,
) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    if let Some(header) = header {
        places.push(Place::Header(header_name(header, &path.key("header"), findings)?));
    }
    if let Some(query) = query {
        places.push(Place::Query(query.to_owned()));
    }
    if let Some(json) = json {
        if !json.starts_with('/') {
            return findings.problem(&path.key("json"), "is not a JSON pointer; write `/challenge`");
        }
        places.push(Place::Json(json.to_owned()));
    }
    Some(places)
}

fn echo(name: &str, written: &file::Echo, path: &Path, findings: &mut Findings) -> Option<Echo> {
    let places = places(written.header.as_deref(), written.query.as_deref(), written.json.as_deref(), path, findings)?;
    if places.is_empty() {
        return findings.problem(path, "needs at least one of `header`, `query` and `json`");
    }
    let max_length = written.max_length.unwrap_or(256);
    if !(1..=1024).contains(&max_length) {
        return findings.problem(&path.key("max_length"), "is not between 1 and 1024");
    }
    let charset = match written.charset {
        None | Some(file::Charset::Token) => Charset::Token,
        Some(file::Charset::Hex) => Charset::Hex,
        Some(file::Charset::Digits) => Charset::Digits,
    };
    Some(Echo { name: name.to_owned(), places, charset, max_length })
}

fn respond(written: &file::Respond, echoes: &[&str], path: &Path, findings: &mut Findings) -> Option<Respond> {
    let status = written.status.unwrap_or(200);
    if !(200..=299).contains(&status) {
        return findings.problem(&path.key("status"), "is not between 200 and 299");
    }
    let mut headers = Vec::new();
    for (name, value) in &written.headers {
        let path = path.key("headers").key(name);
        let name = header_name(name, &path, findings)?;
        judge_reply_header(&name, value, &path, findings)?;
        headers.push((name, template(value, echoes, &path, findings)?));
    }
    let body = reply_body(written.text.as_deref(), written.json.as_ref(), path, findings)?;
    let body = match body {
        Some((content_type, text)) => Some((content_type, template(&text, echoes, path, findings)?)),
        None => None,
    };
    if body.is_some() && matches!(status, 204 | 205) {
        return findings.problem(&path.key("status"), "has no body; leave out `text` and `json`");
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

/// Parses `{name}` in text. Braces that hold no word, as JSON's own do, are text.
fn template(text: &str, echoes: &[&str], path: &Path, findings: &mut Findings) -> Option<Template> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        literal.push_str(before);
        let word = after
            .split_once('}')
            .filter(|(word, _)| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        if let Some((word, tail)) = word {
            let Some(index) = echoes.iter().position(|echo| *echo == word) else {
                return findings.problem(path, format!("has `{{{word}}}`, which `echo` does not name"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Echo(index));
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
