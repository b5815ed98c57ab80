//! Asks as one worker of Envoy's does: many questions at once over one HTTP/2 connection, each a delivery that was never
//! there before, of 25 header lines, correctly signed.
//!
//!     load TARGET PID STREAMS BODY SECONDS
//!
//! Prints one line of JSON: how many checks were answered, in how long, what they cost the server in CPU time of all its
//! threads (from /proc, so the kernel's part is in it), and the latency as the client saw it.

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address, socket_address::PortSpecifier},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request},
    },
};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use std::{
    cell::{Cell, RefCell},
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// As in bench.py.
const SECRET: &[u8] = b"a secret of the benchmarks";
/// Where the number stands that makes every body another one, and the signature.
const NUMBER: &[u8] = b"NUMBERNUMBERNUMB";
const SIGNATURE: &[u8] = &[b'S'; 64];
const WARM_UP: Duration = Duration::from_millis(500);

fn lines() -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> = [
        (":authority", "hooks.example.com"),
        (":method", "POST"),
        (":path", "/github?source=organization"),
        (":scheme", "https"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("content-type", "application/json"),
        ("user-agent", "GitHub-Hookshot/44e9f1c"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-github-event", "push"),
        ("x-github-hook-id", "292430182"),
        ("x-github-hook-installation-target-id", "79929171"),
        ("x-github-hook-installation-target-type", "repository"),
        ("x-hub-signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"),
        ("x-forwarded-for", "192.0.2.60"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-external-address", "192.0.2.60"),
        ("x-envoy-auth-partial-body", "false"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("via", "1.1 edge-17.example.net"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    lines.push(("x-hub-signature-256", format!("sha256={}", String::from_utf8_lossy(SIGNATURE))));
    lines.push(("x-request-id", format!("0bd2a7b6-4a1e-4a48-{}", String::from_utf8_lossy(NUMBER))));
    lines
}

/// A question with places to fill in.
struct Template {
    message: Vec<u8>,
    numbers: Vec<usize>,
    signature: usize,
    body: std::ops::Range<usize>,
}

impl Template {
    fn new(length: usize) -> Self {
        let mut body = br#"{"event":"push","number":""#.to_vec();
        body.extend_from_slice(NUMBER);
        while body.len() < length {
            body.push(b'a' + u8::try_from(body.len() % 26).unwrap_or_default());
        }
        let mut lines = lines();
        lines.push(("content-length", body.len().to_string()));
        let headers = lines
            .into_iter()
            .map(|(name, value)| HeaderValue { key: name.into(), raw_value: value.into(), ..HeaderValue::default() })
            .collect();
        let socket = |address: &str, port| Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: address.into(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..SocketAddress::default()
            })),
        };
        let peer = |address, port| Peer { address: Some(socket(address, port)), ..Peer::default() };
        let http = HttpRequest {
            id: String::from_utf8_lossy(NUMBER).into_owned(),
            method: "POST".into(),
            path: "/github?source=organization".into(),
            host: "hooks.example.com".into(),
            scheme: "https".into(),
            protocol: "HTTP/2".into(),
            size: i64::try_from(body.len()).unwrap_or_default(),
            header_map: Some(HeaderMap { headers }),
            raw_body: body.clone(),
            ..HttpRequest::default()
        };
        let question = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer("192.0.2.60", 51_234)),
                destination: Some(peer("10.0.0.5", 8443)),
                request: Some(Request { http: Some(http), ..Request::default() }),
                context_extensions: [("endpoint".to_owned(), "github".to_owned())].into(),
                ..AttributeContext::default()
            }),
        };
        let encoded = question.encode_to_vec();
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend_from_slice(&encoded);
        let all =
            |needle: &[u8]| (0..message.len()).filter(|at| message[*at..].starts_with(needle)).collect::<Vec<usize>>();
        let begin = all(&body)[0];
        Self { numbers: all(NUMBER), signature: all(SIGNATURE)[0], body: begin..begin + body.len(), message }
    }

    /// The question with that number.
    fn question(&self, number: u64) -> Bytes {
        let mut message = self.message.clone();
        let digits = format!("{number:016x}");
        for at in &self.numbers {
            message[*at..*at + NUMBER.len()].copy_from_slice(digits.as_bytes());
        }
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("any length is a key");
        mac.update(&message[self.body.clone()]);
        let tag = const_hex::encode(mac.finalize().into_bytes());
        message[self.signature..self.signature + SIGNATURE.len()].copy_from_slice(tag.as_bytes());
        message.into()
    }
}

/// CPU time of all threads of a process, in nanoseconds.
fn cpu(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let spent = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(spent).sum()
}

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<C: AsyncRead + AsyncWrite + Unpin> Connection for C {}

async fn connect(target: &str) -> Result<Box<dyn Connection>, Box<dyn Error>> {
    Ok(match target.strip_prefix("unix:") {
        Some(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        None => {
            let connection = tokio::net::TcpStream::connect(target).await?;
            connection.set_nodelay(true)?;
            Box::new(connection)
        }
    })
}

#[derive(Default)]
struct Tally {
    number: Cell<u64>,
    measuring: Cell<bool>,
    over: Cell<bool>,
    wrong: Cell<u64>,
    latencies: RefCell<Vec<u64>>,
}

/// One question and its answer; whether it was an allow.
async fn ask(sender: &mut h2::client::SendRequest<Bytes>, question: Bytes) -> Result<bool, Box<dyn Error>> {
    std::future::poll_fn(|context| sender.poll_ready(context)).await?;
    let request = http::Request::builder()
        .method("POST")
        .uri("http://hookwarden/envoy.service.auth.v3.Authorization/Check")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "5000m")
        .header("x-envoy-internal", "true")
        .header("user-agent", "envoy")
        .body(())?;
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(question, true)?;
    let mut body = response.await?.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.ok_or("no trailers")?;
    let answer = CheckResponse::decode(message.get(5..).ok_or("no message")?)?;
    Ok(trailers.get("grpc-status").is_some_and(|status| status == "0") && answer.status.is_some_and(|s| s.code == 0))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, pid, streams, body, seconds] = arguments.as_slice() else {
        return Err("usage: load TARGET PID STREAMS BODY SECONDS".into());
    };
    let (pid, streams, body): (u32, usize, usize) = (pid.parse()?, streams.parse()?, body.parse()?);
    let seconds = Duration::from_secs_f64(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let connection = connect(target).await?;
        let mut client = h2::client::Builder::new();
        client.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
        let (sender, connection) = client.handshake::<_, Bytes>(connection).await?;
        tokio::task::spawn_local(async move { connection.await.ok() });

        let (template, tally) = (Rc::new(Template::new(body)), Rc::new(Tally::default()));
        for _ in 0..streams {
            let (mut sender, template, tally) = (sender.clone(), Rc::clone(&template), Rc::clone(&tally));
            tokio::task::spawn_local(async move {
                while !tally.over.get() {
                    let number = tally.number.replace(tally.number.get() + 1);
                    let question = template.question(number);
                    let begun = Instant::now();
                    if !matches!(ask(&mut sender, question).await, Ok(true)) {
                        tally.wrong.set(tally.wrong.get() + 1);
                        // A server that is gone is asked no more.
                        if tally.wrong.get() > 100 {
                            return;
                        }
                    }
                    if tally.measuring.get() {
                        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                        tally.latencies.borrow_mut().push(took);
                    }
                }
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let (spent, begun) = (cpu(pid), Instant::now());
        tally.measuring.set(true);
        tokio::time::sleep(seconds).await;
        tally.measuring.set(false);
        let (spent, elapsed) = (cpu(pid).saturating_sub(spent), begun.elapsed());
        tally.over.set(true);

        let mut latencies = tally.latencies.take();
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 1000).copied().unwrap_or_default();
        println!(
            r#"{{"checks":{},"seconds":{},"cpu_ns":{spent},"p50_us":{},"p99_us":{},"wrong":{}}}"#,
            latencies.len(),
            elapsed.as_secs_f64(),
            at(500),
            at(990),
            tally.wrong.get()
        );
        Ok(())
    })
}
