//! Where a run begins. Nothing is kept in the repository for it: what there is to begin with are the vectors and the
//! configurations of the tests, which are written into the corpus when a run begins.

use sha1::{Digest as _, Sha1};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Writes seeds into the corpus of this run, which is the first folder that libFuzzer is given. Where it only looks at
/// single inputs or makes a corpus smaller, nothing is written.
///
/// # Panics
///
/// Where the corpus cannot be written.
pub fn plant(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let (options, inputs): (Vec<String>, Vec<String>) = env::args().skip(1).partition(|word| word.starts_with('-'));
    if options.iter().any(|option| option.starts_with("-merge") || option.starts_with("-minimize")) {
        return;
    }
    let Some(corpus) = inputs.iter().map(Path::new).find(|input| input.is_dir()) else { return };
    for seed in seeds {
        // libFuzzer names its own by the same hash, so that a seed is there once, whoever found it.
        let name = const_hex::encode(Sha1::digest(&seed));
        fs::write(corpus.join(name), seed).expect("the corpus can be written");
    }
}

/// Where the repository is.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The contents of the files of a folder of the repository, of those whose names end so.
///
/// # Panics
///
/// Where they cannot be read.
#[must_use]
pub fn files(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(repository().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    paths
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(end))
        .map(|path| fs::read(path).expect("the file can be read"))
        .collect()
}
