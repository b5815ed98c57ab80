//! The part of `envoy.service.auth.v3.CheckRequest` that a check reads, decoded without copying.
//!
//! Every text field is `Bytes`: prost then slices the message instead of copying it, and does not check that each
//! of some thirty header values is UTF-8. That is decided on purpose. Header names and values are bytes to
//! everything here; method, path, host and endpoint name are checked where they are read (`request`), and a message
//! that fails there is denied, not answered with a gRPC error that a proxy could be told to let through. Maps are
//! lists of entries: order and repetition survive, and nobody pays for hashing. Unknown fields are skipped.
//!
//! Tag numbers are those of `envoy/service/auth/v3/attribute_context.proto`; a test compares with `envoy-types`.

use bytes::Bytes;

/// `envoy.service.auth.v3.CheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    /// What the request is about.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// `envoy.service.auth.v3.AttributeContext`
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// The proxy's direct peer.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
    /// What the proxy's configuration adds.
    #[prost(message, repeated, tag = "10")]
    pub context_extensions: Vec<Entry>,
}

/// `AttributeContext.Peer`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// Its address.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

/// `envoy.config.core.v3.Address`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// An IP address.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    /// In text.
    #[prost(bytes = "bytes", tag = "2")]
    pub address: Bytes,
}

/// `AttributeContext.Request`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Where it is HTTP.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// `AttributeContext.HttpRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// Envoy's stream id.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// The method.
    #[prost(bytes = "bytes", tag = "2")]
    pub method: Bytes,
    /// Headers, repeated ones joined.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Entry>,
    /// Path and query.
    #[prost(bytes = "bytes", tag = "4")]
    pub path: Bytes,
    /// The authority.
    #[prost(bytes = "bytes", tag = "5")]
    pub host: Bytes,
    /// Bytes of the body, or -1 where unknown.
    #[prost(int64, tag = "9")]
    pub size: i64,
    /// `HTTP/1.1`, `HTTP/2`, …
    #[prost(bytes = "bytes", tag = "10")]
    pub protocol: Bytes,
    /// The body as text.
    #[prost(bytes = "bytes", tag = "11")]
    pub body: Bytes,
    /// The body as bytes.
    #[prost(bytes = "bytes", tag = "12")]
    pub raw_body: Bytes,
    /// Headers, one entry a line.
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

/// An entry of a `map<string, string>`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Its key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.config.core.v3.HeaderMap`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// Lines.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// `envoy.config.core.v3.HeaderValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value as text.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Its value as bytes, which wins.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}
