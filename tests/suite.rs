//! Everything that is tested through public doors. One executable, because linking is what takes the time.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "a test that cannot go on has failed"
)]

mod suite {
    pub(crate) mod agreement;
    pub(crate) mod forms;
    pub(crate) mod gate;
    pub(crate) mod places;
    pub(crate) mod process;
    pub(crate) mod seen;
    pub(crate) mod vector;

    mod architecture;
    mod cli;
    mod config;
    mod documentation;
    mod enrolment;
    mod ext_authz;
    mod http_verify;
    mod lifecycle;
    mod mutations;
    mod properties;
    mod reload;
    mod remote_keys;
    mod replay;
    mod vectors;
    mod wycheproof;
}
