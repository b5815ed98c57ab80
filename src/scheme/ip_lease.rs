//! A client address that showed a token once may deliver for a while.
//!
//! A GET with the right token gives the client's address a lease; a POST from an address that holds one passes.
//! It proves little: everybody behind one NAT shares it, and it says nothing about the body. The upstream is told
//! `verified-by: ip-lease`, and the scheme combines with Basic or a signature by `all_of`.
//!
//! This room decides who *asks* for a lease and who *depends* on one. Whether one is held is state, which
//! `admission` asks; there is no renewal by delivering.

use super::find_key;
use crate::{
    clock::Now,
    decision::{Denial, Fault, Rejection, Reply},
    delivery::{ClientAddress, Delivery},
    secret::{Key, Secret},
};
use std::{net::IpAddr, time::Duration};

/// A compiled lease scheme.
#[derive(Debug)]
pub struct IpLease {
    /// The endpoint's name: leases of one endpoint say nothing to another.
    pub endpoint: String,
    /// The query parameter that shows the token.
    pub query: String,
    /// The tokens that are accepted.
    pub keys: Vec<Key<Secret>>,
    /// How long a lease lasts.
    pub ttl: Duration,
    /// Whether private, loopback and link-local addresses may hold one.
    pub allow_private_addresses: bool,
    /// Whose address is the client's.
    pub client: ClientAddress,
    /// What a client is told when it got one.
    pub granted: Reply,
}

/// Who depends on a lease, or holds one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// The endpoint's name.
    pub endpoint: String,
    /// The client's address, canonical.
    pub address: IpAddr,
}

/// A lease about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who gets it.
    pub tenant: Tenant,
    /// For how long.
    pub ttl: Duration,
    /// What the client is told once it is written.
    pub granted: Reply,
}

impl IpLease {
    /// Who the delivery's admission depends on.
    pub fn tenant(&self, delivery: &Delivery<'_>) -> Result<Tenant, Denial> {
        let address = self.client.of(delivery).ok_or(Fault::ClientAddressUnknown)?;
        Ok(Tenant { endpoint: self.endpoint.clone(), address })
    }

    /// What a request for a lease comes to; nothing when this is a delivery.
    #[must_use]
    pub fn enrol(&self, delivery: &Delivery<'_>, now: Now) -> Option<Result<Grant, Denial>> {
        (delivery.method == "GET").then(|| {
            let (absent, repeated) = (Rejection::TokenMissing, Rejection::TokenRepeated);
            let token = delivery.query_parameter(&self.query).required(absent, repeated)?;
            find_key(&self.keys, now, Rejection::TokenMismatch, |secret| secret.matches(token.as_bytes()))?;
            let tenant = self.tenant(delivery)?;
            if !self.allow_private_addresses && !is_public(tenant.address) {
                return Err(Rejection::LeaseAddressRefused.into());
            }
            Ok(Grant { tenant, ttl: self.ttl, granted: self.granted.clone() })
        })
    }
}

/// Whether an address can be a client out there. Anything else is a proxy, a neighbour or nobody, and a lease for
/// it would admit more than one sender.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared_100_64 = matches!(v4.octets(), [100, 64..=127, _, _]);
            let never = v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() || v4.octets().starts_with(&[0]);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared_100_64 || never)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4().is_some()
                || carries_another_address(v6))
        }
    }
}

/// Whether a translator would take it elsewhere: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
fn carries_another_address(v6: std::net::Ipv6Addr) -> bool {
    matches!(v6.segments(), [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses() {
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:a00:1::1",
            "2001:0:a00:1::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["203.0.113.7", "8.8.8.8", "100.128.0.1", "2001:db8::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
