"""What containers leave behind on a machine, and how it is removed."""

import pathlib
import shutil
import subprocess
import tempfile

IP_FORWARD = pathlib.Path("/proc/sys/net/ipv4/ip_forward")


class Directory:
    """Where everything is that is made here. Not under /tmp, which may be memory: it comes to gigabytes."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="hookwarden-deploy-", dir="/var/tmp"))
        return self.path

    def __exit__(self, *_):
        # What a program that had to be killed has left mounted, the innermost first.
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.path}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.path)


class Forwarding:
    """Docker and podman leave chains behind, Docker a policy of DROP for what is forwarded, and both leave forwarding on.

    Only what is new is removed, by name, so that rules which somebody else makes meanwhile stay.
    """

    FAMILIES = "iptables", "ip6tables"

    def __enter__(self):
        self._forward = IP_FORWARD.read_text()
        self._chains = {family: chains(output(f"{family}-save")) for family in self.FAMILIES}
        self._policies = {family: output(family, "-S", "FORWARD").partition("\n")[0].split() for family in self.FAMILIES}

    def __exit__(self, *_):
        for family in self.FAMILIES:
            rules = output(f"{family}-save")
            if new := chains(rules) - self._chains[family]:
                others = [line for line in rules.splitlines() if new.isdisjoint(line.removeprefix(":").split())]
                output(f"{family}-restore", text="\n".join(others) + "\n")
            if self._policies[family]:
                output(family, *self._policies[family])
        IP_FORWARD.write_text(self._forward)


def chains(rules):
    """The names of the chains that a dump declares."""
    return {line[1:].split()[0] for line in rules.splitlines() if line.startswith(":")}


def output(*command, text=""):
    """What a command says; nothing where it fails, as on a machine without a packet filter."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
