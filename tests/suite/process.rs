//! The real program, its log, and what asks it.

use crate::suite::gate::{Asked, FORMS, Seen};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything; a machine that needs it has failed the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running process and its log.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
}

impl Process {
    pub(crate) fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookwarden"))
            .args(["serve", "--config", "hookwarden.yaml", "--log-level", "debug"])
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, seen: Vec::new() }
    }

    /// The next log line whose message is `message`.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if let Ok(value) = serde_json::from_str::<Value>(&line)
                        && value["message"] == message
                    {
                        return value;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no `{message}` in\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) struct Setup {
    pub(crate) folder: tempfile::TempDir,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let setup = Self { folder: tempfile::tempdir().unwrap() };
        setup.write_secret("the first secret of this test");
        setup.configure("");
        setup
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_secret(&self, text: &str) {
        std::fs::write(self.path("secret"), text).unwrap();
    }

    pub(crate) fn configure(&self, more: &str) {
        let text = format!(
            "listen: {{ ext_authz: \"unix://{}\", admin: 127.0.0.1:0 }}\nstore: \"file://{}\"\nwatch: false\nendpoints:\n  hub: {{ provider: github, secrets: [{{ id: main, file: secret }}] }}\n  leased: {{ provider: verify-token, secrets: [{{ id: token, inline: 0123456789abcdef0123 }}] }}\n{more}",
            self.path("socket").display(),
            self.path("state.redb").display(),
        );
        std::fs::write(self.path("hookwarden.yaml"), text).unwrap();
    }

    pub(crate) async fn client(&self) -> AuthorizationClient<Channel> {
        let path = self.path("socket");
        let channel = Endpoint::from_static("http://hookwarden")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap();
        AuthorizationClient::new(channel)
    }

    pub(crate) async fn reason(&self, asked: &Asked) -> String {
        let response = self.client().await.check(asked.check(FORMS[0])).await.unwrap();
        Seen::of(response.into_inner()).reason().to_owned()
    }
}

pub(crate) fn signed(secret: &str) -> Asked {
    Asked {
        method: "POST".into(),
        uri: "https://h/hub".parse().unwrap(),
        headers: vec![(
            "x-hub-signature-256".into(),
            format!("sha256={}", const_hex::encode(crate::suite::gate::mac(secret, &[b"{}"]))).into_bytes(),
        )],
        body: b"{}".to_vec(),
        client: Some("203.0.113.7".into()),
        endpoint: Some("hub".into()),
    }
}

pub(crate) fn lease(method: &str, query: &str) -> Asked {
    Asked {
        method: method.into(),
        uri: format!("https://h/leased{query}").parse().unwrap(),
        headers: vec![],
        body: vec![],
        endpoint: Some("leased".into()),
        client: Some("203.0.113.7".into()),
    }
}

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let (status, _, body) = ask(address, &format!("GET {path}"), &[]);
    (status, body)
}

/// Status, head and body of what the admin listener answers.
pub(crate) fn ask(address: &str, what: &str, headers: &[&str]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "{what} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}
