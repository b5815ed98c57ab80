//! How a Redis is reached: one server, whichever one its sentinels say, or a cluster.

use crate::secret::Secret;
use anyhow::Context as _;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, ScriptInvocation, TlsCertificates, TlsMode,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Longest time that an answer is still of use: what was claimed meanwhile is withdrawn.
const LATEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(1);

/// A Redis or Valkey, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is.
    pub servers: Servers,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Certificates of the authorities that are trusted instead of the public ones, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// The number of the database.
    pub database: i64,
    /// Who we are.
    pub credentials: Credentials,
    /// Who we are to its sentinels.
    pub sentinel_credentials: Credentials,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// Longest time that an answer is waited for.
    pub deadline: Duration,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One(String, u16),
    /// One server, on a Unix socket.
    Socket(PathBuf),
    /// Whichever one is the master of that name, as its sentinels say.
    Sentinels(Vec<(String, u16)>, String),
    /// A cluster, of which these are some.
    Cluster(Vec<(String, u16)>),
}

/// A name and a password.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The name; the server's default user where there is none.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Arc<Secret>>,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.password, &other.password) {
            (Some(one), Some(another)) => one.matches(another.expose()),
            (one, another) => one.is_none() && another.is_none(),
        };
        same && self.username == other.username
    }
}

impl Eq for Credentials {}

impl Credentials {
    fn password(&self) -> Option<String> {
        self.password.as_ref().map(|password| String::from_utf8_lossy(password.expose()).into_owned())
    }

    fn settings(&self, database: i64) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_db(database);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = self.password() {
            settings = settings.set_password(password);
        }
        settings
    }
}

/// Makes connections.
pub(super) enum Connector {
    One(Box<Client>),
    Sentinels(Box<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// A connection, shared by all who ask.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Connector {
    pub(super) fn new(config: &RedisConfig) -> anyhow::Result<Self> {
        if config.tls {
            // The client asks the process for it. Another one that is installed already is as good.
            rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        }
        let certificates =
            || config.tls.then(|| TlsCertificates { client_tls: None, root_cert: config.authorities.clone() });
        match &config.servers {
            Servers::One(..) | Servers::Socket(_) => {
                let address = match &config.servers {
                    Servers::Socket(path) => ConnectionAddr::Unix(path.clone()),
                    Servers::One(host, port) => address(host, *port, config.tls),
                    Servers::Sentinels(..) | Servers::Cluster(_) => anyhow::bail!("several servers are not one"),
                };
                let info = information(address, config.credentials.settings(config.database))?;
                Ok(Self::One(Box::new(match certificates() {
                    Some(certificates) => Client::build_with_tls(info, certificates)?,
                    None => Client::open(info)?,
                })))
            }
            Servers::Sentinels(servers, master) => {
                let addresses = servers.iter().map(|(host, port)| address(host, *port, config.tls));
                let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                    .set_client_to_redis_db(config.database);
                if let Some(username) = &config.credentials.username {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = config.credentials.password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(username) = &config.sentinel_credentials.username {
                    builder = builder.set_client_to_sentinel_username(username);
                }
                if let Some(password) = config.sentinel_credentials.password() {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if let Some(certificates) = certificates() {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                        .set_client_to_sentinel_certificates(certificates);
                }
                Ok(Self::Sentinels(Box::new(builder.build()?)))
            }
            Servers::Cluster(servers) => {
                let nodes = servers
                    .iter()
                    .map(|(host, port)| information(address(host, *port, config.tls), RedisConnectionInfo::default()))
                    .collect::<anyhow::Result<Vec<_>>>()?;
                let mut builder = ClusterClient::builder(nodes).retries(1);
                if let Some(username) = &config.credentials.username {
                    builder = builder.username(username);
                }
                if let Some(password) = config.credentials.password() {
                    builder = builder.password(password);
                }
                if let Some(certificates) = certificates() {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Ok(Self::Cluster(Box::new(builder.build()?)))
            }
        }
    }

    /// Connects; asks the sentinels who the master is, each time.
    pub(super) async fn connect(&mut self) -> Result<Link, RedisError> {
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(LATEST));
        match self {
            Self::One(client) => client.get_multiplexed_async_connection_with_config(&settings).await.map(Link::One),
            Self::Sentinels(client) => client.get_async_connection_with_config(&settings).await.map(Link::One),
            Self::Cluster(client) => {
                let settings = ClusterConfig::new().set_connection_timeout(CONNECT).set_response_timeout(LATEST);
                client.get_async_connection_with_config(settings).await.map(Link::Cluster)
            }
        }
    }
}

impl Link {
    pub(super) async fn run<T: FromRedisValue>(self, invocation: ScriptInvocation<'static>) -> Result<T, RedisError> {
        match self {
            Self::One(mut connection) => invocation.invoke_async(&mut connection).await,
            Self::Cluster(mut connection) => invocation.invoke_async(&mut connection).await,
        }
    }

    pub(super) async fn query<T: FromRedisValue>(self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Self::One(mut connection) => command.query_async(&mut connection).await,
            Self::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }
}

fn address(host: &str, port: u16, tls: bool) -> ConnectionAddr {
    if tls {
        ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host.to_owned(), port)
    }
}

fn information(address: ConnectionAddr, settings: RedisConnectionInfo) -> anyhow::Result<ConnectionInfo> {
    Ok(address.into_connection_info().context("the address cannot be used")?.set_redis_settings(settings))
}
