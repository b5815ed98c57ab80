//! The floor: what tonic and envoy-types cost when the answer is always yes and nothing is looked at.
//!
//! As its documentation shows it, on the runtime that the product uses: a multi-threaded one would make the floor half as
//! dear again and the comparison too easy.

use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, OkHttpResponse,
    authorization_server::{Authorization, AuthorizationServer},
    check_response::HttpResponse,
};
use envoy_types::pb::google::rpc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

struct Yes;

#[tonic::async_trait]
impl Authorization for Yes {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse {
            status: Some(rpc::Status::default()),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
            ..CheckResponse::default()
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("usage: floor unix:PATH | ADDRESS")?;
    let service = AuthorizationServer::new(Yes).max_decoding_message_size(32 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    if let Some(path) = target.strip_prefix("unix:") {
        server.serve_with_incoming(UnixListenerStream::new(tokio::net::UnixListener::bind(path)?)).await?;
    } else {
        // As `serve` would, and the product does: without it one stream at a time waits for acknowledgements.
        let incoming = TcpIncoming::bind(target.parse()?)?.with_nodelay(Some(true));
        server.serve_with_incoming(incoming).await?;
    }
    Ok(())
}
