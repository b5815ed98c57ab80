//! The one TLS client: rustls with AWS-LC, and whom it trusts.

use anyhow::{Context as _, bail};
use std::{path::Path, sync::Arc};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Trusts the certificates in a PEM file, or else the public ones.
pub(crate) fn client(ca_file: Option<&Path>) -> anyhow::Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let Some(path) = ca_file else { return Ok(tls.root_certs(RootCerts::WebPki).build()) };
    let text = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            Ok(_) | Err(_) => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("`{}` holds no certificate", path.display());
    }
    Ok(tls.root_certs(RootCerts::new_with_certs(&certificates)).build())
}
