//! Published keys, fetched from a real TLS server in the background.

use crate::suite::{
    gate::{self, Asked, Form, Seen},
    vector,
};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use hookwarden::{
    clock::{Clock, Now, UnixSeconds},
    config::{self, Context, Loaded, compile::Kept},
    key_fetcher::KeyFetcher,
};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tonic::transport::Channel;

const CERTIFICATE: &str = include_str!("../fixtures/rsa-2048.cert.pem");
const KEY_ID: &str = "/pl/useast1/throwaway-0001";

/// What the host answers, by path.
type Answers = fn(&str) -> String;

/// A key host on this machine, and how often it was asked.
struct Host {
    base: String,
    ca_file: PathBuf,
    asked: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start(answers: Answers) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, certified.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let connection = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream);
                let mut line = String::new();
                if BufReader::new(&mut tls).read_line(&mut line).is_ok()
                    && let Some(path) = line.split(' ').nth(1)
                {
                    drop(tls.write_all(answers(path).as_bytes()));
                    tls.conn.send_close_notify();
                    drop(tls.flush());
                }
            }
        });
        Self { base, ca_file, asked, _folder: folder }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn configuration(&self, allow_private_addresses: bool) -> String {
        serde_json::json!({ "endpoints": { "things": {
            "key_source": "remote",
            "scheme": { "http_signature": {
                "headers": ["authorization"], "algorithms": ["rsa-sha256"],
                "required": ["(request-target)", "digest", "date"], "request_target": "path",
                "remote_keys": {
                    "base": self.base, "key_id": "/pl/{}/{}", "ca_file": self.ca_file,
                    "allow_private_addresses": allow_private_addresses,
                },
            }},
        }}})
        .to_string()
    }
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn certificates(path: &str) -> String {
    if path == KEY_ID { reply("200 OK", CERTIFICATE) } else { reply("404 Not Found", "") }
}

/// The vector that is signed with the published key, and the moment it was made.
fn delivery() -> (Asked, Now) {
    let case = vector::all().into_iter().find(|case| case.title.ends_with("#st-padlock-x509-event")).unwrap();
    let asked = Asked {
        method: case.request.method.clone(),
        uri: case.request.uri(),
        headers: case.request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
        body: case.request.bytes(),
        client: None,
        endpoint: Some("things".into()),
    };
    (asked, Clock::fixed(UnixSeconds(case.now)).now())
}

fn with_key_id(asked: &Asked, id: &str) -> Asked {
    let mut asked = asked.clone();
    for (name, value) in &mut asked.headers {
        if name.eq_ignore_ascii_case("authorization") {
            *value = String::from_utf8(value.clone()).unwrap().replace(KEY_ID, id).into_bytes();
        }
    }
    asked
}

async fn client(configuration: &str, now: Now) -> AuthorizationClient<Channel> {
    let fetcher = KeyFetcher::start(Clock::Fixed(now)).unwrap();
    let kept = Arc::new(Kept { fetcher: Some(fetcher), ..Kept::default() });
    let Loaded { compiled, .. } = config::parse("c", configuration.as_bytes(), &Context { now, kept }).unwrap();
    gate::connect(gate::gate_with(
        "endpoints: { e: { provider: webex, secrets: [{ id: a, inline: a long enough secret }] } }",
        now.wall.0,
        |gate| {
            gate.endpoints.store(Arc::new(compiled.endpoints));
        },
    ))
    .await
}

async fn ask(client: &mut AuthorizationClient<Channel>, asked: &Asked) -> String {
    let form = Form { raw_headers: true, raw_body: true };
    Seen::of(client.check(asked.check(form)).await.unwrap().into_inner()).reason().to_owned()
}

/// Asks until the answer is another one than that the key is not loaded.
async fn ask_until_loaded(client: &mut AuthorizationClient<Channel>, asked: &Asked) -> String {
    for _ in 0..3000 {
        let reason = ask(client, asked).await;
        if reason != "key_not_loaded" {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the key was not loaded within 30 s");
}

#[tokio::test]
async fn a_published_key_is_fetched_once_and_then_verifies() {
    let host = Host::start(certificates);
    let (delivery, now) = delivery();
    let mut client = client(&host.configuration(true), now).await;
    assert_eq!(ask(&mut client, &delivery).await, "key_not_loaded", "a check does not wait");
    assert_eq!(ask_until_loaded(&mut client, &delivery).await, "verified");
    for n in 0..50 {
        let other = ask(&mut client, &with_key_id(&delivery, &format!("/pl/useast1/invented-{n}"))).await;
        assert_eq!(other, "key_not_loaded");
    }
    let mut changed = delivery.clone();
    changed.body.push(b' ');
    assert_eq!(ask(&mut client, &changed).await, "digest_mismatch");
    assert_eq!(host.asked(), 1, "the clock stands still, so the window is one");
}

#[tokio::test]
async fn an_id_the_host_does_not_have_is_unknown() {
    let host = Host::start(certificates);
    let (delivery, now) = delivery();
    let mut client = client(&host.configuration(true), now).await;
    let other = with_key_id(&delivery, "/pl/useast1/nobody");
    assert_eq!(ask_until_loaded(&mut client, &other).await, "key_id_unknown");
    assert_eq!(host.asked(), 1);
}

#[tokio::test]
async fn an_id_that_leads_elsewhere_is_never_asked_for() {
    let host = Host::start(certificates);
    let (delivery, now) = delivery();
    let mut client = client(&host.configuration(true), now).await;
    for id in [
        ".attacker.example/cert.pem",
        "@attacker.example/pl/a/b",
        "/pl/../../b",
        "/pl/a/b?x",
        "//attacker.example/b",
        "/pl/%2e%2e/b",
    ] {
        assert_eq!(ask(&mut client, &with_key_id(&delivery, id)).await, "key_id_unknown", "{id}");
    }
    assert_eq!(host.asked(), 0);
}

#[tokio::test]
async fn private_addresses_and_redirects_are_refused() {
    let host = Host::start(certificates);
    let (delivery, now) = delivery();
    let mut private = client(&host.configuration(false), now).await;
    assert_eq!(ask(&mut private, &delivery).await, "key_not_loaded");

    let elsewhere =
        Host::start(|_| "HTTP/1.1 302 Found\r\nlocation: https://localhost:1/\r\ncontent-length: 0\r\n\r\n".to_owned());
    let mut redirected = client(&elsewhere.configuration(true), now).await;
    assert_eq!(ask(&mut redirected, &delivery).await, "key_not_loaded");

    let long = Host::start(|_| reply("200 OK", &format!("{}{CERTIFICATE}", " ".repeat(1 << 17))));
    let mut bounded = client(&long.configuration(true), now).await;
    assert_eq!(ask(&mut bounded, &delivery).await, "key_not_loaded");

    // The last two were asked; only then is it known what came of it.
    for (host, client) in [(&elsewhere, &mut redirected), (&long, &mut bounded)] {
        for _ in 0..3000 {
            if host.asked() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(host.asked(), 1);
        assert_eq!(ask(client, &delivery).await, "key_not_loaded");
    }
    assert_eq!(host.asked(), 0, "no socket was opened to a private address");
}
