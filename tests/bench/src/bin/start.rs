//! How long it is from the start of a program to the first delivery that it allows.
//!
//!     start TARGET COMMAND…
//!
//! Prints one line of JSON, and ends the program.

use bench::grpc::{Answer, Message, Questions, ask, connect};
use std::{
    error::Error,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_micros(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: start TARGET COMMAND…".into());
    };
    let question = Questions::new(2048).question(0);
    let begun = Instant::now();
    let mut child = Command::new(program).args(rest).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let first = tokio::task::LocalSet::new().run_until(first_allowed(target, question, begun)).await;
    child.kill()?;
    child.wait()?;
    println!(r#"{{"ms":{}}}"#, first?.as_secs_f64() * 1000.0);
    Ok(())
}

async fn first_allowed(target: &str, question: Message, begun: Instant) -> Result<Duration, Box<dyn Error>> {
    let mut sender = loop {
        match connect(target).await {
            Ok(sender) => break sender,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            // Not by the runtime, whose timer has a grain of a millisecond.
            Err(_) => std::thread::sleep(BETWEEN),
        }
    };
    match ask(&mut sender, question).await? {
        Answer::Allowed => Ok(begun.elapsed()),
        other => Err(format!("not allowed: {other}").into()),
    }
}
