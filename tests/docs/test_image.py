"""The image is built where root and Debian are (`make test-deploy`). That cargo can read what it copies is seen here."""

import re
import shutil
import subprocess

from pages import ROOT


def test_the_manifest_is_whole_where_the_image_is_built(tmp_path):
    stage, _, _ = (ROOT / "deploy" / "Dockerfile").read_text().partition("\nFROM scratch")
    copied = [source for line in re.findall(r"^COPY (?!--)(.*) \S+$", stage, re.MULTILINE) for source in line.split()]
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_in)
    for source in copied:
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    # It looks for all that the manifest names before it finds that there is no such program, and builds nothing.
    command = ["cargo", "build", "--locked", "--offline", "--bin", "none", f"--manifest-path={tmp_path}/Cargo.toml"]
    read = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert "no bin target named `none`" in read.stdout
