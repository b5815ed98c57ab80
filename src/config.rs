//! From what an operator wrote to endpoints that cannot be invalid, or to a list of everything wrong with it.
//!
//! - [`yaml`] reads text: bounded, positions kept, one problem per wrong place.
//! - [`file`] is the shape of what was written.
//! - [`compile`] says what it means, and consumes it; [`process`] what of it is no endpoint.
//! - [`secret_source`] fetches secrets from where the file says they are.
//!
//! All problems are reported at once. Nothing is half accepted: a configuration with one problem does not exist.

mod challenge;
pub mod compile;
pub mod file;
pub mod problem;
pub mod process;
mod replay;
pub mod scheme;
pub mod secret_source;
mod store;
pub mod verify;
pub mod yaml;

pub use compile::{Compiled, Context};
pub use problem::{Problem, Problems};

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A configuration that compiled, and what should be looked at all the same.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub compiled: Compiled,
    /// Remarks, with positions.
    pub warnings: Vec<Problem>,
    /// The files that it names.
    pub files: BTreeSet<PathBuf>,
}

/// Reads and compiles a file.
pub fn load(path: &Path, context: &Context) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => parse(&name, &bytes, context),
        Err(error) => Err(Problems::of_file(&name, format!("cannot be read: {error}"))),
    }
}

/// Compiles a text; `name` is what problems call it.
pub fn parse(name: &str, bytes: &[u8], context: &Context) -> Result<Loaded, Problems> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (valid, _) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((bytes, &[]));
        let problem = Problem {
            position: Some(yaml::end(&String::from_utf8_lossy(valid))),
            path: problem::Path::default(),
            text: "is not UTF-8 from here on".to_owned(),
        };
        Problems::new(name, vec![problem])
    })?;
    let read = yaml::read::<file::Config>(text).map_err(|problem| Problems::new(name, vec![problem]))?;
    let mut findings = read.findings;
    let compiled = read.value.map(|config| compile::compile(config, context, &mut findings));
    findings.locate(&read.positions);
    match (compiled, findings.problems.is_empty()) {
        (Some(compiled), true) => Ok(Loaded { compiled, warnings: findings.warnings, files: findings.files }),
        _ => Err(Problems { files: findings.files, ..Problems::new(name, findings.problems) }),
    }
}

/// The JSON Schema of the file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::Config).to_value()
}
