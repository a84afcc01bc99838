"""Starts the command line in processes that are forked from one that has imported everything, for sweeps of short runs.

usage: forked.py SOCKET ARGUMENT...     what a sweep starts instead of `finetune`; `serving` keeps the other end
"""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULES = ("torch", "timm", "torchvision.transforms.v2", "pytorch_lightning", "sklearn.datasets", "wandb", "optuna")


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield what starts a run, while a process that has imported everything waits for such starts."""
    place = folder / "forks"
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(place)])
    try:
        while not place.exists():
            time.sleep(0.1)
        yield (sys.executable, "-I", "-S", __file__, str(place))
    finally:
        server.kill()


def serve(place: str) -> None:
    """Fork a process for each that connects, which becomes the command that it asks for."""
    import importlib

    for name in MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(8)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            become(connection)


def become(connection: socket.socket) -> None:
    """Run a command in this process, with the output of whoever asks for it, and tell it the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size = int.from_bytes(connection.recv(8), "big")
    message, files, _, _ = socket.recv_fds(connection, size, 2)
    while len(message) < size:
        message += connection.recv(size - len(message))
    request = json.loads(message)
    for number, file in enumerate(array.array("i", files), 1):
        os.dup2(file, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [str(Path(sys.executable).with_name("finetune")), *request["arguments"]]
    from finetune.cli import main

    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([code % 256]))
    os._exit(code)


def ask(place: str, arguments: list[str]) -> int:
    """Ask for a run and wait for its exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    message = json.dumps(request).encode()
    connection.send(len(message).to_bytes(8, "big"))
    sent = socket.send_fds(connection, [message], [1, 2])
    connection.sendall(message[sent:])
    return (connection.recv(1) or b"\1")[0]


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
