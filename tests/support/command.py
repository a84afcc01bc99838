"""The command line in processes of their own that need not import torch each: they are forked from one that has.

What is imported, and that the interpreter is not taken apart at the end, are the only differences from a fresh process;
tests of signals, of imports and of what the first moments of a process do start fresh ones.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

PRELOADED = (
    "torch", "torchvision.transforms.v2", "timm", "pytorch_lightning", "torchmetrics", "sklearn.linear_model",
    "sklearn.model_selection", "sklearn.neighbors", "scipy.stats", "pandas", "pyarrow.parquet", "wandb", "optuna",
    "rich.progress", "captum.attr", "matplotlib.figure", "matplotlib.backends.backend_svg", "hydra.main",
)  # fmt: skip
_servers: "dict[int, subprocess.Popen[str]]" = {}


def finetune(
    *arguments: str, folder: Path, watched: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a folder, with one thread, and return what came of it.

    Args:
        arguments: What is typed after its name.
        folder: Where.
        watched: An ending of files; how many that have it were opened is printed last, after "opened: ".
        environment: Variables besides those of this process.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as kept:
        request = {
            "argv": list(arguments), "folder": str(folder), "environment": {**os.environ, **environment}, "kept": kept,
            "watched": watched,
        }  # fmt: skip
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        said = [Path(kept, name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(["finetune", *arguments], code, *said)


def _server() -> "subprocess.Popen[str]":
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        server = subprocess.Popen(
            [sys.executable, __file__], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        _servers[os.getpid()] = server
        atexit.register(server.kill)
    return server


def serve() -> None:
    """Run what is asked for on standard input, one command after the other, until it is closed."""
    import importlib

    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # of an extra that is not there
            continue
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: "dict[str, object]") -> NoReturn:
    """Run a command in this process, as if it had just been started."""
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update({**request["environment"], "OMP_NUM_THREADS": "1"})  # type: ignore[dict-item]
    for number, name in enumerate(("stdout", "stderr"), 1):
        file = os.open(f"{request['kept']}/{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[0] = ""
    sys.argv = [str(Path(sys.executable).with_name("finetune")), *request["argv"]]  # type: ignore[misc]
    if request["watched"]:
        watch(str(request["watched"]))
    code = 0
    try:
        from finetune.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what nobody caught is shown as the interpreter would
        traceback.print_exc()
        code = 1
    leave(code)


def watch(ending: str) -> None:
    """Count the files of an ending that this process opens, and print the number at its end."""
    opened: set[str] = set()

    def note(event: str, arguments: "tuple[object, ...]") -> None:
        if event == "open" and str(arguments[0]).endswith(ending):
            opened.add(str(arguments[0]))

    sys.addaudithook(note)
    atexit.register(lambda: print("opened:", len(opened)))


def leave(code: int) -> NoReturn:
    """End this process as the interpreter does, but for freeing what all the imports made, which takes seconds.

    Each freed object is a page of memory that has to be copied first, since the process is a fork.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
