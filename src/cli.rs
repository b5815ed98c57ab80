//! The command line.
//!
//! Exit codes: 0 success, and `verify`'s allow; 10 `verify`'s answer; 11 `verify`'s deny; 2 a configuration or usage
//! problem; 1 anything else.

mod request;
mod send;
mod sign;

use crate::{
    check,
    clock::{Clock, UnixSeconds},
    config::{self, Context, Loaded, Problems, compile::Kept},
    decision::{Allowed, Decision},
    key_fetcher::KeyFetcher,
    provider, reply,
    server::{Server, runtime},
    store::Store,
};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use request::SavedRequest;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

const PROBLEM: u8 = 2;
const ANSWERED: u8 = 10;
const DENIED: u8 = 11;

/// Verifies webhooks before your application sees them.
#[derive(Debug, Parser)]
#[command(
    name = "hookwarden",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 success (verify: allow), 10 verify: answer, 11 verify: deny,
2 a problem with the configuration or the arguments, 1 anything else."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve `ext_authz` to Envoy until SIGTERM; SIGHUP reloads the configuration
    Serve(Serve),
    /// Report every problem of a configuration, without serving
    Check(OfConfig),
    /// List the presets, or show one as its YAML
    Providers(Providers),
    /// Print the JSON Schema of hookwarden.yaml
    Schema,
    /// Make a correctly signed request and print it
    Sign(sign::Sign),
    /// Make a correctly signed request and send it
    Send(send::Send),
    /// Decide about one saved request, and print the decision as JSON
    Verify(Verify),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct OfConfig {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/hookwarden/hookwarden.yaml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    of: OfConfig,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// What is logged: error, warn, info (denials and answers), debug (allows too)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::level_filters::LevelFilter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Human,
}

#[derive(Debug, clap::Args)]
struct Providers {
    /// Show this preset
    name: Option<String>,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ListFormat {
    Table,
    Json,
    Markdown,
}

#[derive(Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    of: OfConfig,
    /// The request as JSON with `method`, `url`, `headers` ([[name, value]…]), `body` or `body_base64`, and `client_ip`;
    /// `-` for standard input
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Decide as if it were this moment, in seconds since 1970
    #[arg(long, value_name = "UNIX")]
    now: Option<i64>,
    /// Decide as this endpoint, whatever the URL is
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

/// Runs a command line.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(serve) => run_serve(&serve),
        Command::Check(of) => run_check(&of.config),
        Command::Providers(providers) => run_providers(&providers),
        Command::Schema => print(&format!("{:#}\n", config::schema())),
        Command::Sign(sign) => sign.run(),
        Command::Send(send) => send.run(),
        Command::Verify(verify) => run_verify(&verify),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "hookwarden", &mut script);
            print(&String::from_utf8(script)?)
        }
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Prints what is wrong, one line each, on standard error.
fn complain(problems: &Problems) -> ExitCode {
    drop(writeln!(std::io::stderr(), "{problems}"));
    ExitCode::from(PROBLEM)
}

/// Prints one usage problem.
fn misuse(text: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "hookwarden: {text}"));
    ExitCode::from(PROBLEM)
}

fn run_serve(serve: &Serve) -> anyhow::Result<ExitCode> {
    start_log(serve);
    // A panic's message may quote what was being read; where it happened is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a defect in hookwarden");
    }));
    let clock = Clock::system();
    let kept = Arc::new(Kept { fetcher: Some(KeyFetcher::start(clock)?), ..Kept::default() });
    let context = Context { now: clock.now(), kept: Arc::clone(&kept) };
    let loaded = match config::load(&serve.of.config, &context) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(complain(&problems)),
    };
    let server = Server::prepare(&serve.of.config, loaded, kept, clock)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(server.run());
    // What is still running past its bound does not hold up the exit.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Our own lines at the level that was asked for; a library's frame by frame account is nobody's idea of `debug`.
fn start_log(serve: &Serve) {
    use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let levels = Targets::new()
        .with_default(tracing::level_filters::LevelFilter::WARN)
        .with_target(env!("CARGO_PKG_NAME"), serve.log_level);
    let lines = fmt::layer().with_target(false).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(levels);
    match serve.log_format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Human => registry.with(lines).init(),
    }
}

fn run_check(path: &Path) -> anyhow::Result<ExitCode> {
    match config::load(path, &Context::new(Clock::system().now())) {
        Ok(Loaded { compiled, warnings, .. }) => {
            let file = path.display().to_string();
            let mut text: String = warnings.iter().map(|w| format!("warning: {}\n", w.line(&file))).collect();
            text.push_str(&format!("{file}: {} endpoints, no problems\n", compiled.endpoints.iter().count()));
            print(&text)
        }
        Err(problems) => Ok(complain(&problems)),
    }
}

fn run_providers(providers: &Providers) -> anyhow::Result<ExitCode> {
    if let Some(name) = &providers.name {
        return match provider::text(name) {
            Some(text) => print(text),
            None => Ok(misuse(&format!("`{name}` is not a preset; `hookwarden providers` lists them"))),
        };
    }
    match providers.format {
        ListFormat::Markdown => print(&provider::markdown()),
        ListFormat::Table => {
            let rows: Vec<_> = provider::all()
                .iter()
                .map(|(name, preset)| {
                    format!(
                        "{name:18} {:24} {:9} {}\n",
                        preset.title,
                        provider::grade(preset.evidence),
                        provider::summary(&preset.scheme)
                    )
                })
                .collect();
            print(&rows.concat())
        }
        ListFormat::Json => {
            let list: Vec<Value> = provider::all()
                .iter()
                .map(|(name, preset)| {
                    json!({
                        "name": name, "title": preset.title, "evidence": preset.evidence, "docs": preset.docs,
                        "read": preset.read, "note": preset.note, "verifies": provider::summary(&preset.scheme),
                        "settings": preset.settings, "vectors": provider::vectors(name),
                        "handshake": !preset.challenges.is_empty() || preset.scheme.ip_lease.is_some(),
                    })
                })
                .collect();
            print(&format!("{:#}\n", Value::Array(list)))
        }
    }
}

fn run_verify(verify: &Verify) -> anyhow::Result<ExitCode> {
    let clock = verify.now.map_or_else(Clock::system, |now| Clock::fixed(UnixSeconds(now)));
    let loaded = match config::load(&verify.of.config, &Context::new(clock.now())) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(complain(&problems)),
    };
    let endpoints = loaded.compiled.endpoints;
    if let Some(name) = &verify.endpoint
        && endpoints.named(name).is_none()
    {
        return Ok(misuse(&format!("`{name}` is not an endpoint of {}", verify.of.config.display())));
    }
    let request = match SavedRequest::read(&verify.request) {
        Ok(request) => request,
        Err(error) => return Ok(misuse(&format!("{}: {error:#}", verify.request.display()))),
    };
    let delivery = request.delivery(verify.endpoint.as_deref());
    let store = Store::in_memory();
    let outcome = runtime()?.block_on(check::check(&delivery, clock.now(), &endpoints, &store));
    print(&format!("{:#}\n", describe(&outcome)))?;
    Ok(match outcome.decision {
        Decision::Allow(_) => ExitCode::SUCCESS,
        Decision::Answer(_) => ExitCode::from(ANSWERED),
        Decision::Deny(_) => ExitCode::from(DENIED),
    })
}

/// A decision as JSON.
fn describe(outcome: &check::Outcome) -> Value {
    let endpoint = outcome.endpoint.as_deref();
    let decision = match outcome.decision {
        Decision::Allow(_) => "allow",
        Decision::Answer(_) => "answer",
        Decision::Deny(_) => "deny",
    };
    let mut object = json!({
        "decision": decision,
        "reason": outcome.decision.reason(),
        "endpoint": endpoint.map(|e| e.name.as_str()),
        "provider": endpoint.map(|e| e.provider.as_str()),
    });
    let mut set = |name: &str, value: Value| {
        if let Some(object) = object.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    };
    match &outcome.decision {
        Decision::Allow(Allowed::Admitted(admitted)) => {
            set("verified_by", json!(admitted.evidence().as_str()));
            for (name, fact) in [("delivery_id", &outcome.facts.delivery_id), ("event_type", &outcome.facts.event_type)]
            {
                if let Some(fact) = fact {
                    set(name, json!(fact));
                }
            }
            if let Some(label) = admitted.secret() {
                set("secret_id", json!(label.id));
                set(
                    "tags",
                    label.tags.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<serde_json::Map<_, _>>().into(),
                );
            }
        }
        Decision::Allow(Allowed::Observed(_)) => set("verified_by", json!("observe")),
        Decision::Answer(answer) => {
            set("status", json!(answer.reply.status));
            set("headers", json!(answer.reply.headers));
            set("body", json!(answer.reply.body));
        }
        Decision::Deny(denial) => {
            let refusal = reply::refusal(*denial, endpoint, "-");
            set("status", json!(refusal.status));
            set("body", json!(refusal.body));
        }
    }
    object
}
