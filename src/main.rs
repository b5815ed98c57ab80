//! The hookwarden executable: parses the command line and turns its outcome into an exit code.

use clap::Parser as _;
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    match hookwarden::cli::run(hookwarden::cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // A broken pipe is the reader's choice, and there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "hookwarden: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
