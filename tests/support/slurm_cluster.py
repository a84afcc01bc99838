"""A real Slurm of two nodes on this host, in a folder of its own, for as long as a test wants it.

It is installed from the distribution's packages where it is absent; it listens on the loopback alone.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
TEMPLATE = Path(__file__).with_name("slurm.conf")
NODES = ("n0", "n1")
GPUS = 2  # of each node; they are copies of /dev/null


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Start a cluster and give the path of its configuration, which Slurm's commands read from SLURM_CONF.

    The test is skipped where the cluster cannot be installed or started.
    """
    install()
    conf = configure(folder)
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munge = folder / "munge"
    commands = [
        [
            "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        ],
        ["slurmctld", "-D", "-f", str(conf)],
        *(["slurmd", "-D", "-N", node, "-f", str(conf)] for node in NODES),
    ]  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("ab") as output:
                processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            wait_for_socket(munge / "socket")
        wait_for_nodes(environment, processes)
        yield conf
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in left_behind(conf):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def left_behind(conf: Path) -> list[int]:
    """Return the processes that were started with a cluster's configuration, such as steps that report to nobody."""
    mark, found = f"SLURM_CONF={conf}".encode(), []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in file.read_bytes().split(b"\0") and int(file.parent.name) != os.getpid():
                found.append(int(file.parent.name))
    return found


def install() -> None:
    """Install what is needed, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own can only be started by root")
    if all(shutil.which(program) for program in PROGRAMS):
        return
    if shutil.which("apt-get") is None:
        pytest.skip("Slurm is not installed, and there is no apt-get to install it")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("update -qq", "install -y -qq --no-install-recommends slurm-wlm munge"):
        found = subprocess.run(
            ["apt-get", *command.split()], env=environment, capture_output=True, text=True, check=False
        )
        if found.returncode:
            pytest.skip(f"Slurm cannot be installed: {(found.stderr.strip().splitlines() or ['no reason'])[-1]}")


def configure(folder: Path) -> Path:
    """Write the cluster's files and return its configuration."""
    for name in ("munge", "state", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    ports = dict(zip(("controller", "first", "second"), free_ports(3), strict=True))
    conf = folder / "slurm.conf"
    conf.write_text(TEMPLATE.read_text().format(folder=folder, host=socket.gethostname(), **ports))
    devices = [f"NodeName={node} Name=gpu File={folder}/{node}_gpu[0-{GPUS - 1}]" for node in NODES]
    (folder / "gres.conf").write_text("\n".join(devices) + "\n")
    try:
        for node in NODES:
            for number in range(GPUS):
                os.mknod(folder / f"{node}_gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here, which stand for the GPUs of the nodes")
    return conf


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_socket(path: Path) -> None:
    """Wait until munge answers, or skip the test."""
    end = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > end:
            pytest.skip(f"munge does not start: {(path.parent.parent / 'munged.out').read_text()[-200:]}")
        time.sleep(0.05)


def wait_for_nodes(environment: dict[str, str], processes: "list[subprocess.Popen[bytes]]") -> None:
    """Wait until all nodes are idle, or skip the test."""
    end = time.monotonic() + 40
    said = ""
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        command = ["sinfo", "--noheader", "--Node", "--format=%T"]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = found.stdout + found.stderr
        if found.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.3)
    pytest.skip(f"Slurm does not start here: {' '.join(said.split())[-300:]}")
