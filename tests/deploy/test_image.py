"""The image of `deploy/Dockerfile`: what is in it, and what its one program is made of."""

import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile

from bases import run_long
from stack import run
from trial import IMAGE, STAGE

CARGO_CYCLONEDX = pathlib.Path(sys.prefix) / "cargo" / "bin" / "cargo-cyclonedx"
# A panic's place in the source. `strip` leaves these, for they are data.
CRATE_IN_BINARY = re.compile(rb"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[A-Za-z0-9.+-]*)/")


def test_it_holds_one_program_and_no_shell(engine, image, figure):
    files = [member for member in members(engine) if member.isfile()]
    assert sorted(member.name for member in files) == ["LICENSE", "hookwarden"]
    assert [member.name for member in files if member.mode & 0o111] == ["hookwarden"]
    [program] = [member for member in files if member.name == "hookwarden"]
    # Whom it runs as must not be able to replace it.
    assert (program.uid, program.gid, program.mode & 0o7777) == (0, 0, 0o755)
    shell = subprocess.run(engine.command("run", "--rm", "--network=none", "--entrypoint", "/bin/sh", IMAGE), capture_output=True, text=True, check=False)
    assert shell.returncode == 127 and "no such file" in shell.stderr, shell
    figure(f"image: one executable, /hookwarden, {program.size / 1e6:.1f} MB; no shell")


def test_it_runs_as_nobody_in_particular(engine, image, figure):
    [description] = json.loads(engine.run("image", "inspect", IMAGE))
    assert description["Config"]["User"] == "65532:65532"
    assert not description["Config"].get("Healthcheck")
    figure(f"image: {description['Size'] / 1e6:.1f} MB in {len(description['RootFS']['Layers'])} layers, user {description['Config']['User']}")


def test_its_bill_of_materials(engine, image, trial, figure):
    """By the CycloneDX project's own tool. Cargo's metadata cannot rule out every optional dependency, so it may list
    more than was compiled; it must not list less."""
    target = next(line.split()[1] for line in run(["rustc", "-vV"]).splitlines() if line.startswith("host: "))
    options = "--format", "json", "--spec-version", "1.5", "--describe", "binaries", "--no-build-deps", "--target", target
    run_long([CARGO_CYCLONEDX, "cyclonedx", *options], cwd=trial.root)
    bill = json.loads((trial.root / "hookwarden_bin.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "1.5", "hookwarden")
    listed = {(component["name"], component["version"]) for component in bill["components"]}
    assert len(listed) == len(bill["components"])
    assert all(component["purl"] and component["hashes"] for component in bill["components"])

    tree = run(["cargo", "tree", "--manifest-path", trial.root / "Cargo.toml", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--no-dedupe"])
    compiled = {(name, version[1:]) for name, version, *_ in (line.split() for line in tree.splitlines())} - {("hookwarden", "0.1.0")}
    assert compiled <= listed, compiled - listed

    # And the other way round, from the binary itself.
    found = {(name.decode(), version.decode()) for name, version in CRATE_IN_BINARY.findall(trial.binary.read_bytes())}
    assert len(found) > 50, "the binary no longer tells the places of its panics"
    assert found <= listed, found - listed

    # What Cargo does not know of. It is what a scanner would look for in a base image, were there one.
    libc = engine.run("run", "--rm", "--network=none", STAGE, "dpkg-query", "--show", "--showformat", "${Version}", "libc6-dev")
    figure(f"SBOM (CycloneDX 1.5): {len(listed)} components, {len(compiled)} of them compiled, {len(found)} seen in the binary; beside them glibc {libc}, linked statically")


def members(engine):
    """Every file of every layer. Not by `docker export`: a container has files that its image has not."""
    saved = subprocess.run(engine.command("save", IMAGE), capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                yield from files.getmembers()
