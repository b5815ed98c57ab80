//! Networks that deliveries may come from. Says where a delivery came from, and nothing about what it says.

use crate::{
    decision::{Denial, Fault, Rejection},
    delivery::{ClientAddress, Delivery},
};
use ipnet::IpNet;

/// A compiled list of networks.
#[derive(Debug)]
pub struct Networks {
    /// The networks.
    pub networks: Vec<IpNet>,
    /// Whose address a client's is.
    pub client: ClientAddress,
}

impl Networks {
    /// Whether the client's address is in one of them.
    pub fn verify(&self, delivery: &Delivery<'_>) -> Result<(), Denial> {
        let address = self.client.of(delivery).ok_or(Fault::ClientAddressUnknown)?;
        if self.networks.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else {
            Err(Rejection::AddressNotAllowed.into())
        }
    }
}
