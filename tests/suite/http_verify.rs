//! The HTTP listener over a real socket, asked in raw bytes as proxies ask, in every dialect.

use crate::suite::{
    gate::{self, mac},
    vector,
};
use hookwarden::{
    config::{self, Context},
    gate::Gate,
    http_verify::HttpVerify,
    reply::TRUSTED_HEADERS,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};

const NOW: i64 = 1_795_435_200;
const ENDPOINTS: &str = "
  github: { match: { path: /github }, provider: github, body_limit: 1KiB, secrets: [{ id: main, inline: a secret of the tests }] }
  observed: { match: { path: /observed }, provider: github, mode: observe, secrets: [{ id: main, inline: a secret of the tests }] }
  tagged: { match: { path: /tagged }, provider: github, secrets: [{ id: t, inline: another secret of the tests, tags: { mode: test } }] }
";
const SLACK: &str =
    "  slack: { match: { path: /slack }, provider: slack, secrets: [{ id: main, inline: a secret of the tests }] }\n";
const LEASED: &str = "  leased: { match: { path: /leased }, provider: verify-token, secrets: [{ id: t, inline: 0123456789abcdef0123 }] }\n";

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let first = all.next();
        assert_eq!(all.next(), None, "{name} twice");
        first
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned()));
        Self { status, headers: headers.collect(), body: body.to_owned() }
    }
}

/// A listener with some endpoints, and what it was told of its proxies.
struct Listener {
    gate: Arc<Gate>,
    address: SocketAddr,
}

impl Listener {
    async fn start(endpoints: &str, verify: &str, now: i64) -> Self {
        Self::of(&format!("listen: {{ verify: \"127.0.0.1:0\" }}\nverify: {verify}\nendpoints:\n{endpoints}"), now)
            .await
    }

    async fn of(configuration: &str, now: i64) -> Self {
        let (gate, service) = Self::service(configuration, now);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(service.serve(TcpListenerStream::new(listener), std::future::pending::<()>()));
        Self { gate, address }
    }

    fn service(configuration: &str, now: i64) -> (Arc<Gate>, Arc<HttpVerify>) {
        let gate = gate::gate(configuration, now);
        let context = Context::new(gate.clock.now());
        let loaded = config::parse("test.yaml", configuration.as_bytes(), &context).unwrap();
        let rules = loaded.compiled.listen.verify.unwrap().rules;
        (Arc::clone(&gate), HttpVerify::new(gate, rules))
    }

    /// Sends bytes and reads to the end.
    async fn send(&self, request: &[u8]) -> Reply {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        Reply::parse(&answer)
    }

    fn reasons(&self, checks: usize) -> Vec<String> {
        reasons(&self.gate, checks)
    }
}

/// The endpoint, decision and reason of the checks so far, of which there must be as many.
fn reasons(gate: &Gate, checks: usize) -> Vec<String> {
    let text = gate.telemetry.render(&hookwarden::telemetry::Held::default());
    let word = |line: &str, name: &str| {
        line.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned()
    };
    let mut reasons = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("hookwarden_checks_total{")) {
        let count: usize = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        let told = format!("{} {} {}", word(line, "endpoint"), word(line, "decision"), word(line, "reason"));
        reasons.extend(std::iter::repeat_n(told, count));
    }
    assert_eq!(reasons.len(), checks, "{reasons:?}");
    reasons
}

fn signed(path: &str, secret: &str, body: &[u8], more: &str) -> Vec<u8> {
    let signature = const_hex::encode(mac(secret, &[body]));
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: hooks.example.com\r\nconnection: close\r\n{more}x-hub-signature-256: sha256={signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

const SECRET: &str = "a secret of the tests";

/// What every dialect makes of an allow, a denial and an answer.
#[tokio::test]
async fn each_dialect_says_forward_in_its_own_way_and_in_no_other() {
    let challenge = {
        let body = br#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
        let signature = const_hex::encode(mac(SECRET, &[b"v0:", NOW.to_string().as_bytes(), b":", body]));
        let mut request = format!(
            "POST /slack HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-slack-request-timestamp: {NOW}\r\nx-slack-signature: v0={signature}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    };
    for (verify, order) in [
        ("{ dialect: nginx-accel }", Some(("x-accel-redirect", "@app"))),
        ("{ dialect: nginx-accel, forward_to: \"@hooks\" }", Some(("x-accel-redirect", "@hooks"))),
        ("{ dialect: verdict }", Some(("x-hookwarden-verdict", "allow"))),
        ("{ dialect: forward-auth, original: as_sent }", None),
    ] {
        let handshakes = !verify.contains("forward-auth");
        let endpoints = if handshakes { format!("{ENDPOINTS}{SLACK}") } else { ENDPOINTS.to_owned() };
        let listener = Listener::start(&endpoints, verify, NOW).await;

        let allowed = listener.send(&signed("/github", SECRET, b"{}", "")).await;
        assert_eq!((allowed.status, allowed.body.as_str()), (200, ""), "{verify}");
        assert_eq!(allowed.header("x-hookwarden-endpoint"), Some("github"));
        assert_eq!(allowed.header("x-hookwarden-verified-by"), Some("signature"));
        assert_eq!(allowed.header("x-hookwarden-secret-id"), Some("main"));
        if let Some((name, value)) = order {
            assert_eq!(allowed.header(name), Some(value), "{verify}");
        }
        let listed = |name: &str| TRUSTED_HEADERS.contains(&name) || name == "x-hookwarden-verdict";
        let own = allowed.headers.iter().filter(|(name, _)| name.starts_with("x-hookwarden-"));
        assert!(own.clone().count() > 3 && own.clone().all(|(name, _)| listed(name)), "{:?}", allowed.headers);

        let denied = listener.send(&signed("/github", "not the secret at all", b"{}", "")).await;
        assert_eq!(denied.status, 401, "{verify}");
        assert_eq!(denied.header("x-accel-redirect"), None);
        assert!(denied.body.starts_with("rejected, request "), "{denied:?}");
        assert_eq!(denied.header("x-hookwarden-verdict"), (verify.contains("verdict")).then_some("deny"));

        let observed = listener.send(&signed("/observed", "not the secret at all", b"{}", "")).await;
        assert_eq!(observed.header("x-hookwarden-verified-by"), Some("observe"));
        assert_eq!(observed.header("x-hookwarden-reason"), Some("signature_mismatch"));
        if let Some((name, value)) = order {
            assert_eq!(observed.header(name), Some(value), "{verify}");
        }

        let tagged = listener.send(&signed("/tagged", "another secret of the tests", b"{}", "")).await;
        assert_eq!(tagged.header("x-hookwarden-tag-mode"), Some("test"));

        if handshakes {
            let answered = listener.send(&challenge).await;
            assert_eq!(answered.status, 200, "{verify}: {answered:?}");
            assert!(answered.body.contains("3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"), "{answered:?}");
            assert_eq!(answered.header("x-accel-redirect"), None, "an answer is never an allow");
            assert_eq!(answered.header("x-hookwarden-verdict"), verify.contains("verdict").then_some("answer"));
            assert_eq!(answered.header("x-content-type-options"), Some("nosniff"));
        }
    }
}

/// A client's header that a proxy could pass on as ours is refused, however it is spelt; this listener cannot remove it.
#[tokio::test]
async fn what_only_hookwarden_may_say_is_refused() {
    let listener = Listener::start(ENDPOINTS, "{ dialect: nginx-accel }", NOW).await;
    let spoofs =
        ["X-Hookwarden-Endpoint: other", "x-hookwarden-new: 1", "x_hookwarden_endpoint: a", "X-HOOKWARDEN-: b"];
    for spoof in spoofs {
        let reply = listener.send(&signed("/github", SECRET, b"{}", &format!("{spoof}\r\n"))).await;
        assert_eq!((reply.status, reply.header("x-accel-redirect")), (400, None), "{spoof}");
    }
    // What nginx would obey in an answer means nothing in a question.
    let reply = listener.send(&signed("/github", "not the secret at all", b"{}", "X-Accel-Redirect: @app\r\n")).await;
    assert_eq!((reply.status, reply.header("x-accel-redirect")), (401, None));
    let mut reasons = listener.reasons(5);
    reasons.dedup();
    assert_eq!(reasons, ["github deny signature_mismatch", "github deny trusted_header_sent"]);
}

/// Whom the listener answers, and which of a proxy's headers it believes.
#[tokio::test]
async fn only_a_named_proxy_is_answered_and_only_its_own_headers_are_believed() {
    let stranger = Listener::start(ENDPOINTS, "{ dialect: verdict, proxies: [192.0.2.0/24] }", NOW).await;
    let mut connection = TcpStream::connect(stranger.address).await.unwrap();
    connection.write_all(&signed("/github", SECRET, b"{}", "")).await.ok();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.ok();
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    stranger.reasons(0);

    // As sent: what a client says of another address is nothing.
    let as_sent = Listener::start(ENDPOINTS, "{ dialect: verdict }", NOW).await;
    let lies = "x-forwarded-uri: /github\r\nx-forwarded-method: POST\r\nx-forwarded-host: h\r\n";
    let reply = as_sent.send(&signed("/elsewhere", SECRET, b"{}", lies)).await;
    assert_eq!((reply.status, as_sent.reasons(1)[0].as_str()), (404, " deny unknown_endpoint"));

    // Forwarded: all three, each once.
    let forwarded = Listener::start(ENDPOINTS, "{ dialect: forward-auth }", NOW).await;
    assert_eq!(forwarded.send(&signed("/auth", SECRET, b"{}", lies)).await.status, 200);
    for wrong in [
        "x-forwarded-method: POST\r\nx-forwarded-host: h\r\n".to_owned(),
        format!("{lies}x-forwarded-uri: /tagged\r\n"),
        lies.replace("POST", "GET"),
    ] {
        let reply = forwarded.send(&signed("/auth", SECRET, b"{}", &wrong)).await;
        assert!(matches!(reply.status, 400 | 405), "{wrong}: {reply:?}");
    }

    // By path: the proxy's configuration names the endpoint, whatever the delivery's own path is.
    let named = Listener::start(ENDPOINTS, "{ dialect: verdict, endpoint: path }", NOW).await;
    assert_eq!(named.send(&signed("/verify/github/any/path?x=1", SECRET, b"{}", "")).await.status, 200);
    assert_eq!(named.send(&signed("/github", SECRET, b"{}", "")).await.status, 404);
    assert_eq!(named.send(&signed("/verify/none/github", SECRET, b"{}", "")).await.status, 404);
    // And without it, nobody can.
    assert_eq!(as_sent.send(&signed("/verify/github", SECRET, b"{}", "")).await.status, 404);
}

/// An empty body that was only described is no empty body: `ForwardAuth` without `forwardBody` must not verify.
#[tokio::test]
async fn a_body_that_was_not_sent_along_is_missed() {
    let listener = Listener::start(ENDPOINTS, "{ dialect: forward-auth }", NOW).await;
    let signature = const_hex::encode(mac(SECRET, &[b""]));
    for partial in ["", "x-envoy-auth-partial-body: false\r\n"] {
        let request = format!(
            "GET /auth HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{partial}x-forwarded-method: POST\r\nx-forwarded-uri: /github\r\nx-forwarded-host: h\r\nx-hub-signature-256: sha256={signature}\r\n\r\n"
        );
        assert_eq!(listener.send(request.as_bytes()).await.status, 400);
    }
    assert_eq!(listener.reasons(2), ["github deny body_missing"; 2]);
    // nginx's `auth_request` asks with GET.
    let listener = Listener::start(ENDPOINTS, "{ dialect: nginx-accel }", NOW).await;
    let request = format!(
        "GET /github HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-hub-signature-256: sha256={signature}\r\n\r\n"
    );
    assert_eq!(listener.send(request.as_bytes()).await.status, 405);
    // Envoy's `http_service` says when it cut a body.
    let cut = signed("/github", SECRET, b"{}", "x-envoy-auth-partial-body: true\r\n");
    assert_eq!(listener.send(&cut).await.status, 413);
}

/// Of a request that the proxy makes for us, "no body" may mean that it was not told to send it along, whatever method and
/// length it says. Only Envoy says that it looked.
#[tokio::test]
async fn nobody_is_believed_to_have_sent_an_empty_body() {
    let endpoints = ENDPOINTS.replace("body_limit: 1KiB, ", "allow_methods: [POST, DELETE, OPTIONS], ");
    let signature = const_hex::encode(mac(SECRET, &[b""]));
    let ask = |method: &str, told: &str, more: &str| {
        format!("{method} /github HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{told}{more}x-hub-signature-256: sha256={signature}\r\n\r\n")
            .into_bytes()
    };
    let forwarded = Listener::start(&endpoints, "{ dialect: forward-auth }", NOW).await;
    let as_sent = Listener::start(&endpoints, "{ dialect: forward-auth, original: as_sent }", NOW).await;
    for (at, method) in ["POST", "DELETE", "OPTIONS"].into_iter().enumerate() {
        let told = format!("x-forwarded-method: {method}\r\nx-forwarded-host: h\r\nx-forwarded-uri: /github\r\n");
        for length in ["", "content-length: 0\r\n"] {
            assert_eq!(forwarded.send(&ask(method, &told, length)).await.status, 400, "{method} {length}");
            assert_eq!(as_sent.send(&ask(method, "", length)).await.status, 400, "{method} {length}");
        }
        let looked = "content-length: 0\r\nx-envoy-auth-partial-body: false\r\n";
        assert_eq!(forwarded.send(&ask(method, &told, looked)).await.status, 400, "a client's word");
        assert_eq!(as_sent.send(&ask(method, "", looked)).await.status, 200, "Envoy's word");
        assert_eq!(
            forwarded.reasons(3 * (at + 1)).iter().filter(|r| r.ends_with("body_missing")).count(),
            3 * (at + 1)
        );
    }
    // nginx sends what it has, and sends that on.
    let nginx = Listener::start(&endpoints, "{ dialect: nginx-accel }", NOW).await;
    assert_eq!(nginx.send(&ask("POST", "", "content-length: 0\r\n")).await.status, 200);
}

/// What stands behind a `#` is no address to some and part of it to others: nginx sends it on.
#[tokio::test]
async fn an_address_with_a_mark_is_refused() {
    let listener = Listener::start(ENDPOINTS, "{ dialect: nginx-accel }", NOW).await;
    let targets = ["/github#", "/github#/../../admin", "/github?a#&admin=1", "/github?a=1&b=%23#x"];
    for target in targets {
        let reply = listener.send(&signed(target, SECRET, b"{}", "")).await;
        assert_eq!((reply.status, reply.header("x-accel-redirect")), (400, None), "{target}");
    }
    // In a header, a body or escaped it is nothing special.
    let fine = listener.send(&signed("/github?a=%23", SECRET, b"#{#}", "x-note: #1\r\n")).await;
    assert_eq!(fine.status, 200);
    assert_eq!(listener.reasons(5).iter().filter(|reason| *reason == "github deny path_ambiguous").count(), 4);

    // However a request's line is cut into packets, and for every request of a connection.
    let mut connection = TcpStream::connect(listener.address).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let whole = |target: &str| {
        let request = String::from_utf8(signed(target, SECRET, b"{}", "")).unwrap();
        request.replace("connection: close\r\n", "").into_bytes()
    };
    for (target, status) in [("/github", 200), ("/github?x#y", 400), ("/github", 200)] {
        for piece in whole(target).chunks(7) {
            connection.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 2048];
        let length = connection.read(&mut answer).await.unwrap();
        assert_eq!(Reply::parse(&answer[..length]).status, status, "{target}");
    }
    // One that was sent before the last answer was not looked at, and is not believed.
    let mut connection = TcpStream::connect(listener.address).await.unwrap();
    let both = [whole("/github"), signed("/github?x#y", SECRET, b"{}", "")].concat();
    connection.write_all(&both).await.unwrap();
    let mut answers = Vec::new();
    connection.read_to_end(&mut answers).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("x-accel-redirect").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
}

/// Bodies of every framing, up to the limit and one byte over it.
#[tokio::test]
async fn bodies_are_whole_or_refused() {
    let listener = Listener::start(ENDPOINTS, "{ dialect: nginx-accel }", NOW).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(listener.send(&signed("/github", SECRET, &all_bytes, "")).await.status, 200);
    assert_eq!(listener.send(&signed("/github", SECRET, &[b'x'; 1024], "")).await.status, 200);
    assert_eq!(listener.send(&signed("/github", SECRET, &[b'x'; 1025], "")).await.status, 413);

    let chunked = |body: &[u8]| {
        let signature = const_hex::encode(mac(SECRET, &[body]));
        let mut request = format!(
            "POST /github HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\nx-hub-signature-256: sha256={signature}\r\n\r\n"
        )
        .into_bytes();
        for piece in body.chunks(100) {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    assert_eq!(listener.send(&chunked(&all_bytes)).await.status, 200);
    assert_eq!(listener.send(&chunked(b"")).await.status, 200);
    assert_eq!(listener.send(&chunked(&[b'x'; 1025])).await.status, 413);
    listener.reasons(6);

    // Two lengths, or a length and chunks, are two readings of one request.
    for framing in ["content-length: 2\r\ncontent-length: 3\r\n", "content-length: 2\r\ntransfer-encoding: chunked\r\n"]
    {
        let request = format!("POST /github HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{framing}\r\n{{}}");
        let mut connection = TcpStream::connect(listener.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("x-accel-redirect"), "{framing}: {text}");
    }
}

/// A body over the budget is refused with a reply, and what was taken is given back. One that is verified as it comes in
/// takes nothing.
#[tokio::test]
async fn bodies_that_are_held_are_bounded_and_others_are_not_held() {
    let configuration = format!(
        "listen: {{ verify: \"127.0.0.1:0\" }}\nverify: {{ dialect: verdict }}\nendpoints:\n{}",
        ENDPOINTS.replace("body_limit: 1KiB, ", "")
    );
    let listener = Listener::of(&configuration, NOW).await;
    let mut held = listener.gate.budget.open();
    assert!(held.take(listener.gate.limits.bodies_in_flight - 10));
    // An endpoint that observes holds what it looks at.
    assert_eq!(listener.send(&signed("/observed", SECRET, &[b'x'; 11], "")).await.status, 503);
    assert_eq!(listener.send(&signed("/observed", SECRET, &[b'x'; 10], "")).await.status, 200);
    assert_eq!(listener.send(&signed("/github", SECRET, &vec![b'x'; 1 << 20], "")).await.status, 200);
    drop(held);
    assert_eq!(listener.send(&signed("/observed", SECRET, &vec![b'x'; 1 << 20], "")).await.status, 200);
    assert_eq!(listener.gate.budget.spent(), 0);
    assert!(listener.reasons(4).contains(&"observed deny overloaded".to_owned()));
    let metrics = listener.gate.telemetry.render(&hookwarden::telemetry::Held::default());
    assert!(metrics.contains("hookwarden_body_bytes_total{endpoint=\"github\"} 1048576"), "{metrics}");
}

/// A body that is verified as it comes in is verified by any of the secrets, in time, and once.
#[tokio::test]
async fn a_streamed_body_is_judged_like_any_other() {
    let endpoints = "
  timed: { match: { path: /timed }, provider: stripe, on_duplicate: deny, secrets: [{ id: old, inline: whsec_an_old_secret, until: 2026-11-01T00:00:00Z }, { id: live, inline: whsec_a_live_secret }, { id: next, inline: whsec_the_next_secret }] }
";
    let listener = Listener::start(endpoints, "{ dialect: verdict }", NOW).await;
    let body = vec![b'x'; 300 << 10];
    let send = async |secret: &str, at: i64, body: &[u8], shown: &[u8]| {
        let signature = const_hex::encode(mac(secret, &[at.to_string().as_bytes(), b".", body]));
        let mut request = format!(
            "POST /timed HTTP/1.1\r\nhost: h\r\nconnection: close\r\nstripe-signature: t={at},v1={signature}\r\ncontent-length: {}\r\n\r\n",
            shown.len()
        )
        .into_bytes();
        request.extend_from_slice(shown);
        let reply = listener.send(&request).await;
        (reply.status, reply.header("x-hookwarden-secret-id").map(str::to_owned))
    };
    let mut changed = body.clone();
    changed[299 << 10] ^= 1;
    assert_eq!(send("whsec_a_live_secret", NOW, &body, &body).await, (200, Some("live".to_owned())));
    assert_eq!(send("whsec_the_next_secret", NOW, &body, &body).await.0, 409, "the same bytes again");
    assert_eq!(send("whsec_the_next_secret", NOW - 1, &body, &body).await, (200, Some("next".to_owned())));
    assert_eq!(send("whsec_an_old_secret", NOW - 2, &body, &body).await.0, 401);
    assert_eq!(send("whsec_a_live_secret", NOW - 3, &body, &changed).await.0, 401);
    assert_eq!(send("whsec_a_live_secret", NOW - 301, &body, &body).await.0, 401);
    let mut reasons = listener.reasons(6);
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "timed allow verified",
            "timed allow verified",
            "timed deny replayed",
            "timed deny signature_mismatch",
            "timed deny signature_mismatch",
            "timed deny timestamp_too_old",
        ]
    );
}

/// Whether bodies of an endpoint are verified as they come in; nothing where it cannot be compiled.
fn streams(endpoint: impl serde::Serialize) -> Option<bool> {
    let now = hookwarden::clock::Clock::fixed(hookwarden::clock::UnixSeconds(NOW)).now();
    let text = serde_json::json!({ "endpoints": { "e": endpoint } }).to_string();
    let loaded = config::parse("preset", text.as_bytes(), &Context::new(now)).ok()?;
    let endpoint = loaded.compiled.endpoints.named("e").unwrap();
    let scheme = matches!(&endpoint.scheme, hookwarden::scheme::Scheme::Signed(signed) if signed.streams());
    Some(endpoint.challenges.is_empty() && scheme)
}

/// How many of the presets can be verified so. It only ever grows.
#[test]
fn most_presets_stream() {
    let count = vector::endpoints().into_values().filter(|endpoint| streams(endpoint) == Some(true)).count();
    assert!(count >= 60, "{count}");
}

/// Else what begins the body may have been moved out of it, and that shows only when the body is there.
#[test]
fn a_body_streams_where_its_border_is_marked() {
    for (content, expected) in [
        ("{timestamp}{body}", true),
        ("{header:id}.{timestamp}{body}", true),
        ("{path}{timestamp}.{body}", true),
        ("{header:id}{timestamp}{body}", false),
        ("{header:id}{timestamp}{timestamp}{body}", false),
        ("{header:id}{method}{timestamp}{body}", false),
        ("{path}{timestamp}{body}", false),
        ("{header:id}{timestamp}{method}{body}", false),
    ] {
        let scheme = serde_json::json!({ "hmac": {
            "hash": "sha256",
            "signed_content": content,
            "signature": { "header": "x-sig", "encoding": "hex" },
            "timestamp": { "header": "x-ts", "unit": "s", "tolerance": "5m" },
        } });
        let secrets = serde_json::json!([{ "id": "a", "inline": "a secret of some length" }]);
        let endpoint = serde_json::json!({ "scheme": scheme, "secrets": secrets });
        assert_eq!(streams(endpoint), Some(expected), "{content}");
    }
}

/// Time is the runtime's, and it jumps when nothing else is left to do. Over a Unix socket, where what was written is there
/// to be read: a network, even this machine's own, could still be under way with it when time jumps.
#[tokio::test(start_paused = true)]
async fn whoever_is_slow_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("verify.sock");
    let configuration = format!(
        "listen: {{ verify: \"unix:{}\" }}\nverify: {{ dialect: nginx-accel }}\nendpoints:\n{ENDPOINTS}",
        path.display()
    );
    let (gate, service) = Listener::service(&configuration, NOW);
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    tokio::spawn(service.serve(incoming, std::future::pending::<()>()));
    let whole = signed("/github", SECRET, b"0123456789", "");
    let head = whole.len() - 10;
    // How much of a request comes at all, and how long until its connection is over.
    for (sent, status, seconds) in [(0, None, 75), (20, None, 5), (head, Some(408), 10), (head + 5, Some(408), 10)] {
        let mut connection = UnixStream::connect(&path).await.unwrap();
        let begun = tokio::time::Instant::now();
        connection.write_all(&whole[..sent]).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.ok();
        assert_eq!((!answer.is_empty()).then(|| Reply::parse(&answer).status), status, "{sent} bytes");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(seconds + 1), "{sent} bytes: {took:?}");
        assert!(took >= Duration::from_secs(seconds - 1), "{sent} bytes: {took:?}");
    }
    assert_eq!(reasons(&gate, 2), ["github deny body_timeout"; 2]);

    // One that is merely idle between two requests is not.
    let mut connection = UnixStream::connect(&path).await.unwrap();
    let request = String::from_utf8(whole).unwrap().replace("connection: close\r\n", "");
    for pause in [70, 70, 0] {
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 2048];
        let length = connection.read(&mut answer).await.unwrap();
        assert_eq!(Reply::parse(&answer[..length]).status, 200);
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

/// Whose address gets a lease: the one the proxy tells in the header it was said to, and none that a client could write.
#[tokio::test]
async fn a_peers_address_is_the_proxys_to_tell() {
    let ask = |headers: &str| {
        format!(
            "GET /leased?verify_token=0123456789abcdef0123 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n"
        )
        .into_bytes()
    };
    let silent = Listener::start(LEASED, "{ dialect: nginx-accel }", NOW).await;
    for headers in ["", "x-real-ip: 203.0.113.9\r\n", "x-forwarded-for: 203.0.113.9\r\n"] {
        assert_eq!(silent.send(&ask(headers)).await.status, 503, "{headers}");
    }
    assert_eq!(silent.reasons(3), ["leased deny client_address_unknown"; 3]);

    let told = Listener::start(LEASED, "{ dialect: nginx-accel, peer_header: X-Real-IP }", NOW).await;
    for (headers, status) in [
        ("x-real-ip: 203.0.113.9\r\n", 200),
        ("", 503),
        ("x-real-ip: 203.0.113.9\r\nx-real-ip: 203.0.113.10\r\n", 503),
        ("x-real-ip: nobody\r\n", 503),
        ("x-real-ip: 10.0.0.1\r\n", 401),
        ("x-real-ip: ::ffff:10.0.0.1\r\n", 401),
    ] {
        assert_eq!(told.send(&ask(headers)).await.status, status, "{headers}");
    }
    let deliver = |address: &str| {
        format!(
            "POST /leased HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-real-ip: {address}\r\nx-forwarded-for: 203.0.113.9\r\ncontent-length: 2\r\n\r\n{{}}"
        )
        .into_bytes()
    };
    assert_eq!(told.send(&deliver("203.0.113.9")).await.status, 200);
    assert_eq!(told.send(&deliver("203.0.113.10")).await.status, 401);
}

/// Without outcomes a retry cannot be told from a replay, so it passes, marked; what an owner chose stands.
#[tokio::test]
async fn a_proxy_that_tells_no_outcomes_loses_no_retry() {
    let endpoints = "
  one: { match: { path: /one }, provider: github, secrets: [{ id: main, inline: a secret of the tests }] }
  chosen: { match: { path: /chosen }, provider: github, on_duplicate: deny, secrets: [{ id: main, inline: a secret of the tests }] }
";
    let configuration = format!(
        "outcomes: access_log\nlisten: {{ verify: \"127.0.0.1:0\" }}\nverify: {{ dialect: verdict }}\nendpoints:\n{endpoints}"
    );
    let listener = Listener::of(&configuration, NOW).await;
    let send = async |path: &str| {
        let reply = listener.send(&signed(path, SECRET, b"{}", "")).await;
        (reply.status, reply.header("x-hookwarden-duplicate").map(str::to_owned))
    };
    assert_eq!(send("/one").await, (200, None));
    assert_eq!(send("/one").await, (200, Some("true".to_owned())));
    assert_eq!(send("/chosen").await, (200, None));
    assert_eq!(send("/chosen").await, (409, None));
}

/// Every vector decides here as it does everywhere, or is refused before it is asked about.
#[tokio::test]
async fn every_vector_decides_the_same_over_http() {
    let (mut same, mut failures) = (0, Vec::new());
    for case in vector::all() {
        let endpoint = serde_json::json!({ "vector": case.endpoint });
        let configuration = serde_json::json!({
            "listen": { "verify": "127.0.0.1:0" },
            "verify": { "dialect": "verdict", "endpoint": "path", "peer_header": "x-test-peer" },
            "endpoints": endpoint,
        })
        .to_string();
        // A listener each: what one vector leaves behind would make a replay of another.
        let listener = Listener::of(&configuration, case.now).await;
        let (uri, body) = (case.request.uri(), case.request.bytes());
        let mut head = format!(
            "{} /verify/vector{} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            case.request.method,
            uri.path_and_query().unwrap(),
            uri.authority().unwrap()
        );
        if let Some(client) = &case.request.client_ip {
            head += &format!("x-test-peer: {client}\r\n");
        }
        for (name, value) in &case.request.headers {
            if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("host") {
                head += &format!("{name}: {value}\r\n");
            }
        }
        let mut request = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(&body);
        let reply = listener.send(&request).await;
        let told = (reply.header("x-hookwarden-verdict").unwrap_or("none"), reply.status);
        let expected = match case.expect.decision.as_str() {
            "allow" => ("allow", 200),
            other => (other, case.expect.status.unwrap_or(told.1)),
        };
        if told == expected {
            same += 1;
        } else {
            failures.push(format!("{}: expected {expected:?}, got {told:?}", case.title));
        }
    }
    assert!(failures.is_empty(), "{} failures, {same} alike\n{}", failures.len(), failures.join("\n"));
}
