//! How our reading of a question is held against that of Envoy's own types: by the property tests, with messages that are made
//! for it, and by a fuzz target (`fuzz/targets/question.rs`), which looks for its own.

use envoy_types::pb::envoy::{config::core::v3::address, service::auth::v3::CheckRequest as EnvoyCheckRequest};
use hookwarden::ext_authz::message;
use prost::Message as _;

/// Whatever Envoy's own types take, ours take too and read alike. Theirs are stricter about texts that are not UTF-8, and
/// about what is in fields that ours leave alone.
pub(crate) fn compare(bytes: &[u8]) {
    let ours = message::CheckRequest::decode(bytes.to_vec().into());
    if let Ok(theirs) = EnvoyCheckRequest::decode(bytes) {
        let mut ours = ours.unwrap();
        assert_same(&ours, &theirs);
        // Without its body it says everything else as before.
        ours.let_go_of_body();
        let mut theirs = theirs;
        let http = theirs.attributes.as_mut().and_then(|attributes| attributes.request.as_mut()?.http.as_mut());
        if let Some(http) = http {
            http.body.clear();
            http.raw_body.clear();
        }
        assert_same(&ours, &theirs);
    } else if let Ok(ours) = ours {
        drop(ours.delivery());
    }
}

pub(crate) fn assert_same(ours: &message::CheckRequest, theirs: &EnvoyCheckRequest) {
    let attributes = theirs.attributes.as_ref();
    let http = attributes.and_then(|a| a.request.as_ref()).and_then(|r| r.http.as_ref());
    assert_eq!(ours.is_http(), http.is_some());
    let endpoint = attributes.and_then(|a| a.context_extensions.get("endpoint"));
    assert_eq!(ours.endpoint(), endpoint.map(String::as_bytes));
    let source = attributes.and_then(|a| a.source.as_ref()).and_then(|peer| peer.address.as_ref());
    let peer = match source.and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket.address.as_bytes(),
        Some(address::Address::Pipe(_) | address::Address::EnvoyInternalAddress(_)) | None => &[],
    };
    assert_eq!(ours.peer(), peer);
    let Some(theirs) = http else { return };
    assert_eq!(ours.id(), theirs.id.as_bytes());
    assert_eq!(ours.method(), theirs.method.as_bytes());
    assert_eq!(ours.path(), theirs.path.as_bytes());
    assert_eq!(ours.host(), theirs.host.as_bytes());
    assert_eq!(ours.size(), theirs.size);
    assert_eq!(ours.protocol(), theirs.protocol.as_bytes());
    assert_eq!(ours.text_body(), theirs.body.as_bytes());
    assert_eq!(ours.raw_body(), theirs.raw_body.as_slice());
    assert!(ours.joined().len() >= theirs.headers.len());
    for (name, value) in &theirs.headers {
        // A map's last entry wins.
        let last = ours.joined().filter(|(key, _)| *key == name.as_bytes()).last().unwrap();
        assert_eq!(last.1, value.as_bytes());
    }
    let lines = theirs.header_map.iter().flat_map(|map| &map.headers);
    let lines: Vec<(&[u8], &[u8])> = lines
        .map(|line| {
            let value = if line.raw_value.is_empty() { line.value.as_bytes() } else { line.raw_value.as_slice() };
            (line.key.as_bytes(), value)
        })
        .collect();
    assert_eq!(ours.lines().collect::<Vec<_>>(), lines);
}
