//! Lists the preset files, so that adding a provider is adding a file.

use std::{env, fs, io, path::Path};

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by environment variables")]
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/provider");
    let mut presets: Vec<_> =
        fs::read_dir("src/provider")?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    presets.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    presets.sort();
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let mut list = String::from("static PRESETS: &[(&str, &str)] = &[\n");
    for path in presets {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        list.push_str(&format!(
            "    ({name:?}, include_str!({:?})),\n",
            Path::new(&root).join(&path).display().to_string()
        ));
    }
    list.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("presets.rs"), list)
}
