//! What the loads share: deliveries, the protocols that they are sent in, and what is read of the servers.

pub mod deliveries;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod process;
pub mod tally;
