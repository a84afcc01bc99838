"""The supervisor between a pool and a job: whatever happens, nothing of the job is left behind.

It runs as a program of its own, in a few milliseconds, and hence imports nothing but what starting a process takes:

    python -I -S supervisor.py LIMIT GRACE COMMAND...

It is told by the pool over standard input, a socket whose end means that the pool is gone, and answers there with the
lines `pid N` when the job has started, and `ended CODE` or `exceeded CODE` (its time limit) or `refused MESSAGE` (it
cannot be started) at the end.
"""

import ctypes
import os
import select
import signal
import sys
import time

SOFT, HARD = b"s", b"h"
CHANNEL = 0
LINGER = 5.0  # seconds that the processes a job leaves behind have to end by themselves
KILLING = 10.0  # seconds after which processes that do not die are given up
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # of linux/prctl.h
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NEVER = float("inf")


class _ParentWatch:
    """A job and all the processes it has made.

    Attributes:
        pid: The job's process.
        code: How it ended; None while it runs.
        exceeded: Whether it ran into its time limit.
    """

    def __init__(self, pid: int, limit: float, grace: float) -> None:
        """Watch a process that has just been started.

        Args:
            pid: The process.
            limit: Seconds it may take.
            grace: Seconds between asking it to end and killing it.
        """
        self.pid = pid
        self.grace = grace
        self.code: int | None = None
        self.exceeded = False
        self.ask_at = time.monotonic() + limit
        self.kill_at = NEVER

    def ask(self) -> None:
        """Ask the job to end, once: a second Ctrl-C would cut its clean end short.

        The signal is the one of Ctrl-C, and only the job's first process gets it: a run then ends its ranks and
        workers itself and notes that it was interrupted. Lightning answers SIGTERM with a collective operation that
        waits for ranks which may be waiting for something else.
        """
        if self.kill_at == NEVER and self.code is None:
            self.kill_at = time.monotonic() + self.grace
            os.kill(self.pid, signal.SIGINT)
        self.ask_at = NEVER

    def reap(self) -> bool:
        """Collect what has ended, and return whether any process is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.ask_at = NEVER
                self.kill_at = min(self.kill_at, time.monotonic() + LINGER)

    def kill(self) -> None:
        """Kill all processes, and those that they make meanwhile, until none is left."""
        end = time.monotonic() + KILLING
        while self.reap() and time.monotonic() < end:
            for pid in descendants():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.002)
        self.code = -signal.SIGKILL if self.code is None else self.code

    def on_time(self) -> None:
        """Do what has become due."""
        now = time.monotonic()
        if now >= self.ask_at:
            self.exceeded = True
            self.ask()
        if now >= self.kill_at:
            self.kill()

    @property
    def patience(self) -> float | None:
        """Seconds until something is due; None for never."""
        due = min(self.ask_at, self.kill_at)
        return None if due == NEVER else max(0.0, due - time.monotonic())


def descendants() -> list[int]:
    """Return the processes below this one; those whose parent has died are its children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = children.get(os.getpid(), [])
    for pid in found:
        found += children.get(pid, [])
    return found


def _start(command: "list[str]") -> int:
    """Start the job in a group of its own and return its process.

    Raises:
        OSError: It cannot be started.
    """
    library = ctypes.CDLL(None)
    library.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(command, supervisor, library)
        except OSError as error:
            os.write(writing, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(writing)
    errno = os.read(reading, 16)
    os.close(reading)
    if errno:
        os.waitpid(pid, 0)
        raise OSError(int(errno), os.strerror(int(errno)))
    return pid


def become(command: "list[str]", supervisor: int, library: ctypes.CDLL) -> None:
    """Turn this process into the job, which dies with its supervisor."""
    os.setpgid(0, 0)
    library.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before the line above
        os._exit(1)
    for number in (*FORWARDED, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), CHANNEL)
    os.execvp(command[0], command)


def _wait(watch: _ParentWatch, signals: int) -> None:
    """Wait until nothing of the job is left, and do what the pool says meanwhile."""
    channel = [CHANNEL]
    while watch.reap() and not (watch.code is not None and watch.kill_at <= time.monotonic()):
        ready = select.select([*channel, signals], [], [], watch.patience)[0]
        if signals in ready and any(number in FORWARDED for number in os.read(signals, 64)):
            watch.ask()
        if CHANNEL in ready:
            word = os.read(CHANNEL, 64)
            if word == b"" or HARD in word:
                watch.kill()
            elif SOFT in word:
                watch.ask()
        watch.on_time()


def tell(line: str) -> None:
    """Write a line to the pool, if it is still there."""
    try:
        os.write(CHANNEL, f"{line}\n".encode())
    except OSError:
        return


def _main(arguments: "list[str]") -> None:
    """Run a job to its end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a scheduler's worker may block some, which its children inherit
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda signum, frame: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    limit, grace, *command = arguments
    try:
        pid = _start(command)
    except OSError as error:
        tell(f"refused {error.strerror}: {command[0]}")
        return
    tell(f"pid {pid}")
    watch = _ParentWatch(pid, float(limit), float(grace))
    _wait(watch, reading)
    tell(f"{'exceeded' if watch.exceeded else 'ended'} {watch.code}")


if __name__ == "__main__":
    _main(sys.argv[1:])
