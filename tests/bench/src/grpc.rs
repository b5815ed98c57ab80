//! `ext_authz` as one worker of Envoy's asks it: over one HTTP/2 connection, in questions of 25 header lines.

use crate::deliveries::{Deliveries, NUMBER, Template};
use bytes::{Buf as _, Bytes, buf::Chain};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address, socket_address::PortSpecifier},
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{self, HttpRequest, Peer},
            check_response::HttpResponse,
        },
    },
    google::protobuf::value::Kind,
};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response};
use prost::Message as _;
use std::{error::Error, fmt, future::Future as _, pin::Pin, task::Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// A question as it is sent. The long middle of its body is the same bytes in all of them, and is not copied.
pub type Message = Chain<Chain<Bytes, Bytes>, Bytes>;

/// Questions about deliveries of one length.
pub struct Questions {
    deliveries: Deliveries,
    before: Template,
    after: Template,
}

/// What a server made of a question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Forward it.
    Allowed,
    /// The sender gets this status; hookwarden's metadata has the reason.
    Denied(i32, String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Denied(status, reason) => write!(f, "{status} {reason}"),
        }
    }
}

fn lines(signature: (&'static str, String), length: usize) -> Vec<(&'static str, String)> {
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
    lines.push(signature);
    lines.push(("x-request-id", format!("0bd2a7b6-4a1e-4a48-{NUMBER}")));
    lines.push(("content-length", length.to_string()));
    lines
}

impl Questions {
    /// About deliveries of `length` bytes, as GitHub signs them.
    pub fn new(length: usize) -> Self {
        Self::about(Deliveries::new(length))
    }

    /// About these.
    pub fn about(deliveries: Deliveries) -> Self {
        let body = [deliveries.beginning(), deliveries.end().as_bytes()].concat();
        let headers = lines(deliveries.line(), body.len())
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
            id: NUMBER.into(),
            method: "POST".into(),
            path: "/github?source=organization".into(),
            host: "hooks.example.com".into(),
            scheme: "https".into(),
            protocol: "HTTP/2".into(),
            size: i64::try_from(body.len()).unwrap_or_default(),
            header_map: Some(HeaderMap { headers }),
            raw_body: body,
            ..HttpRequest::default()
        };
        let question = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer("192.0.2.60", 51_234)),
                destination: Some(peer("10.0.0.5", 8443)),
                request: Some(attribute_context::Request { http: Some(http), ..Default::default() }),
                context_extensions: [("endpoint".to_owned(), "github".to_owned())].into(),
                ..AttributeContext::default()
            }),
        };
        let encoded = question.encode_to_vec();
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend_from_slice(&encoded);
        // The header lines follow the body: their tag is the higher one.
        let beginning = deliveries.beginning().as_ref();
        let at = (0..message.len()).find(|at| message[*at..].starts_with(beginning)).expect("the body is in it");
        let (before, rest) = message.split_at(at);
        let template = |bytes: &[u8]| Template::new(bytes.into(), &deliveries.place());
        let (before, after) = (template(before), template(&rest[beginning.len()..]));
        Self { deliveries, before, after }
    }

    /// The question with that number.
    pub fn question(&self, number: u64) -> Message {
        self.with_the_signature_of(number, number)
    }

    /// The question with that number and the signature of another one.
    pub fn with_the_signature_of(&self, other: u64, number: u64) -> Message {
        let [before, beginning, after] = self.parts(other, number);
        before.chain(beginning).chain(after)
    }

    fn parts(&self, signed: u64, number: u64) -> [Bytes; 3] {
        let ((_, signature), (number, _)) = (self.deliveries.signed(signed), self.deliveries.signed(number));
        let part = |template: &Template| Bytes::from(template.filled(&number, &signature));
        [part(&self.before), self.deliveries.beginning().clone(), part(&self.after)]
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// Connects to `unix:PATH` or to an address. What drives the connection is a task of the local set.
pub async fn connect(target: &str) -> Result<SendRequest<Message>, Box<dyn Error>> {
    let socket: Box<dyn Socket> = match target.strip_prefix("unix:") {
        Some(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        None => {
            let socket = tokio::net::TcpStream::connect(target).await?;
            socket.set_nodelay(true)?;
            Box::new(socket)
        }
    };
    handshake(socket).await
}

/// Says hello.
pub(crate) async fn handshake(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> Result<SendRequest<Message>, Box<dyn Error>> {
    let mut client = h2::client::Builder::new();
    client.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
    let (sender, connection) = client.handshake(socket).await?;
    tokio::task::spawn_local(async move { connection.await.ok() });
    Ok(sender)
}

/// One question and its answer. What is not one of the two well-formed answers is an error.
pub async fn ask(sender: &mut SendRequest<Message>, question: Message) -> Result<Answer, Box<dyn Error>> {
    let (response, mut stream) = call(sender).await?;
    stream.send_data(question, true)?;
    answer(response.await?).await
}

/// A question of which all was sent but the end.
pub struct Begun {
    response: ResponseFuture,
    stream: SendStream<Message>,
    end: Bytes,
    /// Where the server did not want to hear the end.
    early: Option<Result<Response<RecvStream>, h2::Error>>,
}

impl Begun {
    /// Sends the question with that number up to its end, as fast as the server takes it.
    pub async fn begin(
        sender: &mut SendRequest<Message>,
        questions: &Questions,
        number: u64,
    ) -> Result<Self, Box<dyn Error>> {
        let [before, mut beginning, end] = questions.parts(number, number);
        let (response, mut stream) = call(sender).await?;
        stream.send_data(alone(before), false)?;
        let mut begun = Self { response, stream, end, early: None };
        while !beginning.is_empty() && begun.early.is_none() {
            begun.stream.reserve_capacity(beginning.len().min(FRAME));
            if let Some(granted) = begun.granted().await {
                let part = beginning.split_to(granted.min(beginning.len()));
                begun.stream.send_data(alone(part), false)?;
            }
        }
        Ok(begun)
    }

    /// How much may be sent; nothing where there is an answer already.
    async fn granted(&mut self) -> Option<usize> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(response) = Pin::new(&mut self.response).poll(context) {
                self.early = Some(response);
                return Poll::Ready(None);
            }
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(granted))) => Poll::Ready(Some(granted)),
                // Then the response says why.
                Poll::Ready(_) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the end, and waits for the answer.
    pub async fn end(mut self) -> Result<Answer, Box<dyn Error>> {
        let response = match self.early {
            Some(response) => response?,
            None => {
                // Where it was not wanted after all, the response says so.
                self.stream.send_data(alone(self.end), true).ok();
                self.response.await?
            }
        };
        answer(response).await
    }
}

/// Longest piece of a question that is sent in pieces.
const FRAME: usize = 16 << 10;

fn alone(part: Bytes) -> Message {
    part.chain(Bytes::new()).chain(Bytes::new())
}

pub(crate) async fn call(
    sender: &mut SendRequest<Message>,
) -> Result<(ResponseFuture, SendStream<Message>), Box<dyn Error>> {
    std::future::poll_fn(|context| sender.poll_ready(context)).await?;
    let request = Request::builder()
        .method("POST")
        .uri("http://hookwarden/envoy.service.auth.v3.Authorization/Check")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "5000m")
        .header("x-envoy-internal", "true")
        .header("user-agent", "envoy")
        .body(())?;
    Ok(sender.send_request(request, false)?)
}

async fn answer(response: Response<RecvStream>) -> Result<Answer, Box<dyn Error>> {
    let mut body = response.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.ok_or("no trailers")?;
    match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => read(CheckResponse::decode(message.get(5..).ok_or("no message")?)?),
        other => Err(format!("grpc-status {:?}", other.map(String::from_utf8_lossy)).into()),
    }
}

fn read(response: CheckResponse) -> Result<Answer, Box<dyn Error>> {
    let reason = response.dynamic_metadata.as_ref().and_then(|metadata| metadata.fields.get("reason"));
    let reason = reason.and_then(|value| match &value.kind {
        Some(Kind::StringValue(reason)) => Some(reason.clone()),
        _ => None,
    });
    match (response.status.map(|status| status.code), response.http_response) {
        (Some(0), Some(HttpResponse::OkResponse(_))) => Ok(Answer::Allowed),
        (Some(code), Some(HttpResponse::DeniedResponse(denied))) if code != 0 => {
            let status = denied.status.ok_or("a denied response without a status")?;
            Ok(Answer::Denied(status.code, reason.unwrap_or_default()))
        }
        (code, _) => Err(format!("status {code:?} and a response that is not of its kind").into()),
    }
}
