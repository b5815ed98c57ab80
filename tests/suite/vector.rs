//! Vector files: deliveries as data, each valid one in full, each invalid one as a valid one with one change.

use serde::Deserialize;
use serde_yaml::Value;
use std::{collections::BTreeMap, path::Path};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(rename = "source")]
    _source: String,
    pub(crate) endpoint: Value,
    pub(crate) now: i64,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) name: String,
    #[serde(default, rename = "source")]
    _source: Option<String>,
    #[serde(default)]
    pub(crate) catalogue: Option<String>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    pub(crate) request: Option<Request>,
    pub(crate) of: Option<String>,
    pub(crate) change: Option<BTreeMap<String, Value>>,
    pub(crate) now: Option<i64>,
    pub(crate) expect: Expect,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    pub(crate) client_ip: Option<String>,
}

#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) decision: String,
    pub(crate) reason: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) verified_by: Option<String>,
    pub(crate) secret_id: Option<String>,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
}

/// One vector, with its change applied.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) catalogue: Option<String>,
    pub(crate) endpoint: Value,
    pub(crate) now: i64,
    pub(crate) request: Request,
    pub(crate) expect: Expect,
}

impl Request {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => panic!("both body and body_base64"),
            (_, Some(text)) => STANDARD.decode(text).unwrap(),
            (text, None) => text.clone().unwrap_or_default().into_bytes(),
        }
    }

    pub(crate) fn uri(&self) -> http::Uri {
        self.url.parse().unwrap()
    }

    fn remove(&mut self, name: &str) {
        let before = self.headers.len();
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        assert!(self.headers.len() < before, "there was no {name} to change");
    }
}

impl Case {
    /// Applies the one change of a derived vector.
    fn change(&mut self, kind: &str, value: &Value) {
        let text = || value.as_str().unwrap_or_else(|| panic!("{kind} wants text")).to_owned();
        let pair = || serde_yaml::from_value::<(String, String)>(value.clone()).unwrap();
        match kind {
            "set_header" => {
                let (name, value) = pair();
                self.request.remove(&name);
                self.request.headers.push((name, value));
            }
            "add_header" => self.request.headers.push(pair()),
            "add_headers" => {
                self.request.headers.extend(serde_yaml::from_value::<Vec<(String, String)>>(value.clone()).unwrap());
            }
            "remove_header" => self.request.remove(&text()),
            "body" => (self.request.body, self.request.body_base64) = (Some(text()), None),
            "body_base64" => (self.request.body, self.request.body_base64) = (None, Some(text())),
            "append_body" => {
                let body = String::from_utf8(self.request.bytes()).unwrap() + &text();
                (self.request.body, self.request.body_base64) = (Some(body), None);
            }
            "now" => self.now = value.as_i64().unwrap(),
            "method" => self.request.method = text(),
            "url" => self.request.url = text(),
            "client_ip" => self.request.client_ip = Some(text()),
            "secrets" | "public_keys" | "settings" | "public_url" | "enrolment" => {
                self.endpoint.as_mapping_mut().unwrap().insert(kind.into(), value.clone());
            }
            other => panic!("unknown change {other}"),
        }
    }
}

impl File {
    /// All cases of a file, each derived one made from its base.
    pub(crate) fn cases(self, title: &str) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for vector in self.vectors {
            let title = format!("{title}#{}", vector.name);
            assert!(cases.iter().all(|case| case.title != title), "{title} twice");
            let case = match (vector.request, vector.of, vector.change) {
                (Some(request), None, None) => Case {
                    title,
                    catalogue: vector.catalogue,
                    endpoint: self.endpoint.clone(),
                    now: vector.now.unwrap_or(self.now),
                    request,
                    expect: vector.expect,
                },
                (None, Some(of), Some(change)) => {
                    let base = title.rsplit_once('#').unwrap().0.to_owned() + "#" + &of;
                    let base =
                        cases.iter().find(|case| case.title == base).unwrap_or_else(|| panic!("{title}: no {of}"));
                    let mut case = Case { title, catalogue: vector.catalogue, expect: vector.expect, ..base.clone() };
                    assert!(
                        vector.now.is_none() && change.len() == 1,
                        "{}: a derived vector has exactly one change",
                        case.title
                    );
                    for (kind, value) in &change {
                        case.change(kind, value);
                    }
                    case
                }
                _ => panic!("{title}: either `request`, or `of` and `change`"),
            };
            cases.push(case);
        }
        cases
    }
}

/// Every case of every vector file.
pub(crate) fn all() -> Vec<Case> {
    under(Path::new("tests/vectors"))
}

/// The same, for whoever is started elsewhere.
pub(crate) fn under(vectors: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for directory in sorted(vectors) {
        for path in sorted(&directory) {
            let text = std::fs::read_to_string(&path).unwrap();
            let file: File = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let title = path.strip_prefix(vectors).unwrap().display().to_string();
            cases.extend(file.cases(&title));
        }
    }
    assert!(!cases.is_empty());
    cases
}

/// An endpoint of each preset, as an operator would write it: the one its first vectors are for.
pub(crate) fn endpoints() -> BTreeMap<String, Value> {
    let mut endpoints = BTreeMap::new();
    for case in all() {
        if let Some(name) = case.endpoint["provider"].as_str() {
            endpoints.entry(name.to_owned()).or_insert(case.endpoint);
        }
    }
    endpoints
}

fn sorted(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
