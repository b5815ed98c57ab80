#!/usr/bin/env python3
"""Makes a virtual environment and installs pinned packages into it: `make_venv.py DIRECTORY REQUIREMENTS`.

Debian splits `venv` into a package of its own that a bare machine may lack. So three ways are tried, the least
intrusive first; only the last one touches the system, says so, and needs root. Standard library only.
"""

import os
import pathlib
import shutil
import subprocess
import sys

PIP_INSTALL = "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"


def run(*command):
    return subprocess.run([str(part) for part in command], check=False).returncode == 0


def quietly(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def has_pip(directory):
    python = directory / "bin" / "python"
    return python.exists() and quietly(python, "-m", "pip", "--version")


def by_standard_library(directory):
    # Quiet: without Debian's package this prints advice that the next ways make needless.
    return quietly(sys.executable, "-m", "venv", "--clear", directory)


def by_virtualenv(directory):
    if not quietly(sys.executable, "-m", "pip", "--version"):
        return False
    tools = directory.with_name(directory.name + "-tools")
    print("python3-venv is missing: using virtualenv instead", flush=True)
    try:
        return run(sys.executable, *PIP_INSTALL, "--target", tools, "virtualenv==20.26.6") and run(
            "env", f"PYTHONPATH={tools}", sys.executable, "-m", "virtualenv", "--quiet", "--clear", directory
        )
    finally:
        shutil.rmtree(tools, ignore_errors=True)


def by_debian_package(directory):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("installing the Debian package python3-venv", flush=True)
    return run("apt-get", "update", "-qq") and run("apt-get", "install", "-y", "-qq", "python3-venv") and by_standard_library(directory)


def make(directory):
    if has_pip(directory):
        return
    for way in by_standard_library, by_virtualenv, by_debian_package:
        if way(directory) and has_pip(directory):
            return
    sys.exit(f"cannot make the virtual environment {directory}: install Python 3's venv module (on Debian: python3-venv)")


def main():
    directory, requirements = pathlib.Path(sys.argv[1]), sys.argv[2]
    print(f"installing {requirements} into {directory}", flush=True)
    make(directory)
    if not run(directory / "bin" / "python", *PIP_INSTALL, "-r", requirements):
        sys.exit(f"cannot install {requirements}")


if __name__ == "__main__":
    main()
