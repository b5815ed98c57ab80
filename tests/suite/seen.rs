//! A response as Envoy reads it. The fuzz targets read theirs with it too.

use envoy_types::pb::{
    envoy::{
        config::core::v3::HeaderValueOption,
        service::auth::v3::{CheckResponse, check_response::HttpResponse},
    },
    google::protobuf::value::Kind,
};
use std::collections::HashMap;

/// What a client and an upstream would see of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) forwarded: bool,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) removed: Vec<String>,
    pub(crate) body: String,
    pub(crate) metadata: HashMap<String, String>,
}

impl Seen {
    /// Reads a response as Envoy does, and refuses every shape that would allow by accident.
    pub(crate) fn of(response: CheckResponse) -> Self {
        let metadata = response.dynamic_metadata.unwrap_or_default().fields.into_iter();
        let metadata = metadata
            .map(|(name, value)| match value.kind {
                Some(Kind::StringValue(text)) => (name, text),
                other => panic!("{name}: {other:?}"),
            })
            .collect();
        let code = response.status.expect("a response without a status allows").code;
        let lines = |headers: Vec<HeaderValueOption>| -> Vec<(String, String)> {
            let lines = headers.into_iter().map(|option| {
                assert_eq!(option.append_action, 0, "append_action is never set");
                option.header.unwrap()
            });
            lines.map(|header| (header.key, header.value)).collect()
        };
        match (code, response.http_response) {
            (0, Some(HttpResponse::OkResponse(ok))) => {
                let headers = lines(ok.headers);
                let both = ok.headers_to_remove.iter().find(|name| headers.iter().any(|(set, _)| set == *name));
                assert_eq!(both, None, "a header that is set and removed is lost");
                Self {
                    forwarded: true,
                    status: 0,
                    headers,
                    removed: ok.headers_to_remove,
                    body: String::new(),
                    metadata,
                }
            }
            (7, Some(HttpResponse::DeniedResponse(denied))) => Self {
                forwarded: false,
                status: u16::try_from(denied.status.unwrap().code).unwrap(),
                headers: lines(denied.headers),
                removed: Vec::new(),
                body: denied.body,
                metadata,
            },
            shape => panic!("a shape that Envoy might take for an allow: {shape:?}"),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn reason(&self) -> &str {
        &self.metadata["reason"]
    }
}
