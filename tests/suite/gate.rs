//! A real gRPC server on a port of its own, and a client that asks as Envoy does, with Envoy's own types.

use crate::suite::forms;
pub(crate) use crate::suite::seen::Seen;
use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
    },
};
use hookwarden::{
    clock::{Clock, UnixSeconds},
    config::{self, Context, process::Limits},
    ext_authz::{ExtAuthz, GrpcService},
    gate::{Gate, budget::Budget, examiners::Examiners},
    store::Store,
    telemetry::Telemetry,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;

/// A gate over a configuration text, at a moment that stands still.
pub(crate) fn gate(configuration: &str, now: i64) -> Arc<Gate> {
    gate_with(configuration, now, |_| {})
}

pub(crate) fn gate_with(configuration: &str, now: i64, change: impl FnOnce(&mut Gate)) -> Arc<Gate> {
    let clock = Clock::fixed(UnixSeconds(now));
    let loaded = config::parse("test.yaml", configuration.as_bytes(), &Context::new(clock.now()))
        .unwrap_or_else(|problems| panic!("{problems}\n{configuration}"));
    let telemetry = Telemetry::new().unwrap();
    telemetry.configured(&loaded.compiled.endpoints, clock.now());
    let mut gate = Gate {
        endpoints: arc_swap::ArcSwap::from_pointee(loaded.compiled.endpoints),
        store: Store::in_memory(),
        clock,
        telemetry,
        traces: hookwarden::traces::Traces::default(),
        limits: Limits::default(),
        budget: Budget::new(Limits::default().bodies_in_flight),
        examiners: Examiners::per_core().unwrap(),
    };
    change(&mut gate);
    Arc::new(gate)
}

/// Serves a gate and connects to its check service.
pub(crate) async fn connect(gate: Arc<Gate>) -> AuthorizationClient<Channel> {
    AuthorizationClient::new(channel(gate).await).max_encoding_message_size(usize::MAX)
}

/// Serves a gate with all its services, and connects to them.
pub(crate) async fn channel(gate: Arc<Gate>) -> Channel {
    Channel::from_shared(format!("http://{}", serve(gate).await)).unwrap().connect().await.unwrap()
}

/// Serves a gate with all its services, and says where.
pub(crate) async fn serve(gate: Arc<Gate>) -> SocketAddr {
    let (stop, stopped) = watch::channel(false);
    let (address, serving) = serve_until(stopped, gate, tonic_health::server::health_reporter().1).await;
    tokio::spawn(async move {
        let _running = stop;
        serving.await.unwrap();
    });
    address
}

/// The same until told to stop, with a health service of one's own.
pub(crate) async fn serve_until(
    mut stopped: watch::Receiver<bool>,
    gate: Arc<Gate>,
    health: impl GrpcService,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ExtAuthz::new(&gate, stopped.clone(), health);
    let serving = tokio::spawn(async move {
        let told = async { drop(stopped.wait_for(|stopped| *stopped).await) };
        service.serve(TcpListenerStream::new(listener), told).await;
    });
    (address, serving)
}

/// How Envoy is configured to tell a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// `encode_raw_headers`
    pub(crate) raw_headers: bool,
    /// `pack_as_bytes`
    pub(crate) raw_body: bool,
}

pub(crate) const FORMS: [Form; 4] = [
    Form { raw_headers: true, raw_body: true },
    Form { raw_headers: true, raw_body: false },
    Form { raw_headers: false, raw_body: true },
    Form { raw_headers: false, raw_body: false },
];

/// A request as Envoy would ask about it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) uri: http::Uri,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) client: Option<String>,
    pub(crate) endpoint: Option<String>,
}

impl Asked {
    pub(crate) fn http(&self, form: Form) -> HttpRequest {
        let mut lines: Vec<(String, Vec<u8>)> = vec![
            (":authority".into(), self.uri.authority().unwrap().as_str().into()),
            (":path".into(), self.uri.path_and_query().unwrap().as_str().into()),
            (":method".into(), self.method.clone().into()),
            (":scheme".into(), b"https".to_vec()),
        ];
        let announced = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if !announced && !self.body.is_empty() {
            lines.push(("content-length".into(), self.body.len().to_string().into()));
            lines.push(("x-envoy-auth-partial-body".into(), b"false".to_vec()));
        }
        lines.extend(self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        let mut http = HttpRequest {
            id: "4242".into(),
            method: self.method.clone(),
            path: self.uri.path_and_query().unwrap().as_str().into(),
            host: self.uri.authority().unwrap().as_str().into(),
            scheme: "https".into(),
            size: i64::try_from(self.body.len()).unwrap(),
            protocol: "HTTP/1.1".into(),
            ..HttpRequest::default()
        };
        forms::tell(&mut http, lines, &self.body, (form.raw_headers, form.raw_body));
        http
    }

    pub(crate) fn check(&self, form: Form) -> CheckRequest {
        question(self.http(form), self.client.as_deref(), self.endpoint.as_deref())
    }
}

pub(crate) fn question(http: HttpRequest, client: Option<&str>, endpoint: Option<&str>) -> CheckRequest {
    let socket = |address: &str| SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(40_000)),
        ..SocketAddress::default()
    };
    let peer = |address| Peer {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket(address))) }),
        ..Peer::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: client.map(peer),
            destination: Some(peer("127.0.0.1")),
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: endpoint.map(|name| ("endpoint".to_owned(), name.to_owned())).into_iter().collect(),
            ..AttributeContext::default()
        }),
    }
}

/// The HMAC-SHA256 of `pieces`, one behind the other.
pub(crate) fn mac(secret: &str, pieces: &[&[u8]]) -> Vec<u8> {
    use hookwarden::{
        scheme::mac::{Hash, MacKey},
        secret::Secret,
    };
    let key = MacKey::hmac(Hash::Sha256, Secret::new(secret.into()), false).unwrap();
    let content: Vec<_> = pieces.iter().map(|piece| (*piece).into()).collect();
    key.tag(&content).bytes().to_vec()
}
