//! The process: start, reload, stop, and what survives a kill.

use crate::suite::{
    gate::FORMS,
    process::{Process, Setup, get, lease, signed},
};
use hyper_util::rt::TokioIo;
use std::os::unix::fs::PermissionsExt as _;
use tonic::transport::Endpoint;

#[tokio::test]
async fn a_lease_survives_a_kill() {
    let setup = Setup::new();
    let mut process = Process::start(setup.folder.path());
    process.wait_for("ready");
    assert_eq!(setup.reason(&lease("POST", "")).await, "lease_missing");
    assert_eq!(setup.reason(&lease("GET", "?verify_token=0123456789abcdef0123")).await, "lease_granted");
    process.signal("KILL");
    process.wait();
    assert!(setup.path("socket").exists(), "a killed process leaves its socket");

    let mut process = Process::start(setup.folder.path());
    process.wait_for("ready");
    assert_eq!(setup.reason(&lease("POST", "")).await, "verified");
}

#[tokio::test]
async fn one_process_per_socket_and_its_mode() {
    let setup = Setup::new();
    let mut first = Process::start(setup.folder.path());
    first.wait_for("ready");
    let mode = std::fs::metadata(setup.path("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    setup.configure("");
    let text = std::fs::read_to_string(setup.path("hookwarden.yaml")).unwrap();
    std::fs::write(setup.path("hookwarden.yaml"), text.replace("state.redb", "other.redb")).unwrap();
    let mut second = Process::start(setup.folder.path());
    assert_eq!(second.wait().code(), Some(1), "the socket is in use");
    assert_eq!(setup.reason(&signed("the first secret of this test")).await, "verified", "and stays with the first");
}

#[tokio::test]
async fn sighup_reloads_and_keeps_the_last_good() {
    let setup = Setup::new();
    let mut process = Process::start(setup.folder.path());
    let ready = process.wait_for("ready");
    let admin = ready["admin"].as_str().unwrap().to_owned();
    assert_eq!(setup.reason(&signed("the first secret of this test")).await, "verified");
    assert_eq!(setup.reason(&lease("GET", "?verify_token=0123456789abcdef0123")).await, "lease_granted");

    setup.write_secret("the second secret of this test");
    process.signal("HUP");
    process.wait_for("the configuration was reloaded");
    assert_eq!(setup.reason(&signed("the second secret of this test")).await, "verified");
    assert_eq!(setup.reason(&signed("the first secret of this test")).await, "signature_mismatch");
    assert_eq!(setup.reason(&lease("POST", "")).await, "verified", "a reload does not empty the store");

    setup.configure("  broken: { provder: github }\n");
    process.signal("HUP");
    let told = process.wait_for("the configuration was not reloaded; the one in force stays");
    assert!(
        told["problem"].as_str().unwrap().contains(":7:13: endpoints.broken.provder: is not a field here"),
        "{told}"
    );
    assert_eq!(setup.reason(&signed("the second secret of this test")).await, "verified");
    let (_, metrics) = get(&admin, "/metrics");
    for line in [
        "hookwarden_config_last_reload_successful 0",
        "hookwarden_config_generation 2",
        "hookwarden_config_reloads_total{outcome=\"refused\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_success() {
    let setup = Setup::new();
    let mut process = Process::start(setup.folder.path());
    let ready = process.wait_for("ready");
    let admin = ready["admin"].as_str().unwrap().to_owned();
    assert_eq!(get(&admin, "/livez").0, 200);
    assert_eq!(get(&admin, "/readyz").0, 200);
    assert_eq!(get(&admin, "/elsewhere").0, 404);
    // A connection that is open, as Envoy's always is, must not hold up the exit.
    let mut client = setup.client().await;
    client.check(signed("the first secret of this test").check(FORMS[0])).await.unwrap();
    process.signal("TERM");
    process.wait_for("stopped");
    assert_eq!(process.wait().code(), Some(0));
}

#[tokio::test]
async fn health_is_told_for_the_server_and_the_service() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let setup = Setup::new();
    let mut process = Process::start(setup.folder.path());
    process.wait_for("ready");
    let path = setup.path("socket");
    let channel = Endpoint::from_static("http://hookwarden")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap();
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let mut client = HealthClient::new(channel.clone());
        let status = client.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status;
        assert_eq!(status, 1, "{service:?}");
    }
}

#[test]
fn a_bad_configuration_does_not_start() {
    let setup = Setup::new();
    setup.configure("  broken: { provider: github }\n");
    let mut process = Process::start(setup.folder.path());
    assert_eq!(process.wait().code(), Some(2));
}

#[tokio::test]
async fn a_generated_token_is_printed_once_and_kept_over_a_reload() {
    let setup = Setup::new();
    let text = std::fs::read_to_string(setup.path("hookwarden.yaml")).unwrap();
    let text = text.replace(", secrets: [{ id: token, inline: 0123456789abcdef0123 }]", "");
    std::fs::write(setup.path("hookwarden.yaml"), text).unwrap();
    let mut process = Process::start(setup.folder.path());
    process.wait_for("ready");
    let line = process.seen.iter().find(|line| line.starts_with("endpoint `leased` has no secret")).unwrap();
    let token = line.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(token.len(), 48);
    process.signal("HUP");
    process.wait_for("the configuration was reloaded");
    assert_eq!(setup.reason(&lease("GET", &format!("?verify_token={token}"))).await, "lease_granted");
    process.signal("TERM");
    process.wait_for("stopped");
    assert_eq!(process.seen.iter().filter(|line| line.contains(&token)).count(), 1, "and never logged");
}
