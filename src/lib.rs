//! # hookwarden
//!
//! A webhook verification sidecar. A proxy asks about each request before it forwards it; hookwarden says whether
//! the configured provider really sent it, and answers the provider's handshakes itself.
//!
//! ## The way of one delivery
//!
//! - [`ext_authz`] reads Envoy's question, or [`http_verify`] another proxy's: a [`delivery`], bytes, borrowed, undecided.
//! - [`gate`] is the same for both: how long a check may take, and who is told of it.
//! - [`check`] walks it through the rooms below, in order, and is the only place that knows the order.
//! - [`endpoint`] finds the receiver; its compiled rules select the secrets.
//! - [`received`] is the delivery with its whole body, and what is read out of it; [`condition`] asks it questions.
//! - [`challenge`] answers handshakes.
//! - [`scheme`] verifies the proof and makes a `Verified`, which nothing else can.
//! - [`admission`] asks the [`store`] what the proof depends on and makes an `Admitted`.
//! - [`decision`] holds what it came to, and the spelling of every reason.
//! - [`telemetry`] writes one log line and the metrics, [`traces`] a span; [`reply`] has the words, which the listener
//!   puts into its proxy's own.
//!
//! ## Around it
//!
//! - [`config`] turns what an operator wrote into endpoints, or into a list of everything wrong with it.
//! - [`provider`] holds the presets: data, in the words of the configuration.
//! - [`key_fetcher`] fetches published keys, in the background; a check never waits for it.
//! - [`server`] owns the listeners, reload and shutdown; [`cli`] is the command line.
//! - [`clock`], [`secret`] and [`json`] are values used by every room.

pub mod check;

pub mod admission;
pub mod challenge;
pub mod condition;
pub mod decision;
pub mod delivery;
pub mod endpoint;
pub mod received;
pub mod replay;
pub mod scheme;

pub mod clock;
pub mod json;
pub mod secret;

pub mod cli;
pub mod config;
pub mod ext_authz;
pub mod gate;
pub mod http_verify;
pub mod key_fetcher;
pub mod provider;
pub mod reply;
pub mod server;
pub mod store;
pub mod telemetry;
mod tls;
pub mod traces;
