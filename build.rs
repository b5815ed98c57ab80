//! Lists the preset files, so that adding a provider is adding a file.
//!
//! YAML is for whoever writes and reads them. The JSON that is made of it here is for the program, at every start.

use std::{env, fs, io, path::Path};

/// How many test vectors a directory holds; none where the sources came without the tests.
fn vectors(directory: &Path) -> usize {
    let Ok(files) = fs::read_dir(directory) else { return 0 };
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("- name: ")).count()).sum()
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by environment variables")]
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/provider");
    let mut presets: Vec<_> =
        fs::read_dir("src/provider")?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    presets.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    presets.sort();
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    println!("cargo::rerun-if-changed=tests/vectors");
    let mut list = String::from("static PRESETS: &[Shipped] = &[\n");
    for path in presets {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read: serde_json::Value = serde_yaml::from_str(&fs::read_to_string(&path)?)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        list.push_str(&format!(
            "    Shipped {{ name: {name:?}, text: include_str!({:?}), json: {:?}, vectors: {} }},\n",
            Path::new(&root).join(&path).display().to_string(),
            read.to_string(),
            vectors(&Path::new("tests/vectors").join(&name))
        ));
    }
    list.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("presets.rs"), list)
}
