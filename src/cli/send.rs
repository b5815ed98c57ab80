//! Sends a signed request, over HTTP or HTTPS.

use super::{print, sign::Make};
use anyhow::Context as _;
use std::{path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, clap::Args)]
pub(super) struct Send {
    #[command(flatten)]
    make: Make,
    /// Trust only the certificates in this PEM file
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Connect here, whatever the URL's host is
    #[arg(long, value_name = "HOST:PORT")]
    connect_to: Option<String>,
}

impl Send {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let request = match self.make.request() {
            Ok(request) => request,
            Err(failure) => return failure.into_result(),
        };
        let mut message = http::Request::builder().method(request.method.as_str()).uri(&request.url);
        for (name, value) in &request.headers {
            message = message.header(name, value);
        }
        let message = message.body(request.bytes)?;
        let mut response = self.agent()?.run(message).context("the request got no answer")?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(1 << 20).read_to_string().unwrap_or_default();
        print(&format!("{status}\n{body}{}", if body.is_empty() || body.ends_with('\n') { "" } else { "\n" }))?;
        Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn agent(&self) -> anyhow::Result<ureq::Agent> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .allow_non_standard_methods(true)
            .tls_config(crate::tls::client(self.ca_file.as_deref())?)
            .build();
        Ok(match &self.connect_to {
            Some(address) => {
                let resolver = Fixed(address.clone());
                ureq::Agent::with_parts(config, ureq::unversioned::transport::DefaultConnector::default(), resolver)
            }
            None => config.into(),
        })
    }
}

/// Resolves every name to one address.
#[derive(Debug)]
struct Fixed(String);

impl ureq::unversioned::resolver::Resolver for Fixed {
    fn resolve(
        &self,
        _: &http::Uri,
        _: &ureq::config::Config,
        _: ureq::unversioned::transport::NextTimeout,
    ) -> Result<ureq::unversioned::resolver::ResolvedSocketAddrs, ureq::Error> {
        use std::net::ToSocketAddrs as _;
        let address = self.0.to_socket_addrs()?.next().ok_or(ureq::Error::HostNotFound)?;
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}
