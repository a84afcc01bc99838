"""The pool of a Ray cluster that runs already: each job is a task, and `ray.wait` tells when one has ended."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune.config.settings.search_groups import RaySettings
from finetune.errors import ConfigError, MissingExtraError
from finetune.search.pools.jobs import CANCELLED, Job, Outcome, end_jobs
from finetune.search.pools.supervised_process import RemoteJob, Signal, unstarted

# variables of this machine that jobs on other machines need, beside those of their own machine
PASSED_ON = ("WANDB_", "HF_", "FINETUNE_", "PYTHONPATH")
_ASK = 1.0  # seconds between two questions to the cluster
_ANSWER = 10.0  # seconds that the cluster may take to answer at all
UNHEARD = 5.0  # seconds after which Ray kills a task that has not done what is wanted of it
_WAITING = "ray:waiting"


class SignalBox:
    """An actor that knows where each job runs and what is wanted of it; the tasks ask it."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.places: dict[str, str] = {}
        self.wanted: dict[str, Signal] = {}

    def begin(self, key: str, place: str) -> None:
        """Note where a job runs."""
        self.places[key] = place

    def where(self) -> dict[str, str]:
        """Return where each job ran that has begun."""
        return self.places

    def want(self, key: str, signal: Signal) -> None:
        """Note what is wanted of a job."""
        self.wanted[key] = signal

    def read_signal(self, key: str) -> Signal:
        """Return what is wanted of a job."""
        return self.wanted.get(key, Signal.GO_ON)


def run_remote_job(remote_job: RemoteJob, signals: Any) -> Outcome:
    """Run a job on the node of this task and return its outcome."""
    import ray

    place = f"ray:{os.uname().nodename}/{ray.get_runtime_context().get_node_id()[:4]}"
    ray.get(signals.begin.remote(remote_job.job.key, place))

    def read_signal() -> Signal:
        try:
            return Signal(ray.get(signals.read_signal.remote(remote_job.job.key)).value)
        except KeyboardInterrupt:  # it was taken back just when it began
            return Signal.END

    return remote_job.run(place, read_signal)


@dataclass
class RayJob:
    """A job that Ray knows.

    Attributes:
        job: The job.
        submitted: When, in seconds since the epoch.
        place: Where it runs.
        cancelled: Whether it was asked to end.
        kill_at: When Ray is to kill it, by the monotonic clock; None where that is not wanted.
    """

    job: Job
    submitted: float
    place: str = _WAITING
    cancelled: bool = False
    kill_at: float | None = None

    def outcome(self, error: BaseException) -> Outcome:
        """Return the outcome of a job of which there is no more than Ray's word."""
        name = type(error).__name__
        if self.place == _WAITING:
            reason = CANCELLED if self.cancelled else f"never started: {name}: {str(error).strip().splitlines()[-1]}"
            return replace(unstarted(self.job, self.place, ""), reason=reason)
        reason = CANCELLED if self.cancelled else f"killed with its task, of which Ray says {name}"
        return Outcome(self.job.key, -9, reason, self.place, self.submitted, time.time() - self.submitted)


class RayPool:
    """Runs each job as a task of Ray's.

    Attributes:
        size: How many wait or run at a time.
    """

    def __init__(self, settings: RaySettings) -> None:
        """Join the cluster.

        Raises:
            ConfigError: Ray is not installed, or the cluster does not answer.
        """
        self.size = settings.jobs
        self.settings = settings
        self.ray = _join(settings.address)
        self._signals = self.ray.remote(num_cpus=0)(SignalBox).remote()
        self._sent: dict[Any, RayJob] = {}
        self._asked = float("-inf")

    def free(self) -> int:
        """Return how many more may be submitted."""
        return self.size - len(self._sent)

    def submit(self, job: Job) -> None:
        """Send a job to the cluster.

        Raises:
            RuntimeError: As many as may be are there, or one of this key.
        """
        if not self.free() or job.key in self.running():
            raise RuntimeError(f"Job {job.key} was submitted twice, or while {self.size} wait or run.")
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        sent = replace(job, log=job.log.absolute(), environment={**passed, **job.environment})
        remote_job = RemoteJob(sent, os.getcwd(), self.settings.cpus, self.settings.grace)
        options = {"num_cpus": self.settings.cpus, "num_gpus": self.settings.devices_per_job, "max_retries": 0}
        task = self.ray.remote(**options, resources=dict(self.settings.resources))(run_remote_job)
        self._sent[task.remote(remote_job, self._signals)] = RayJob(job, time.time())

    def running(self) -> Mapping[str, str]:
        """Return the node of each job whose outcome has not been told, by its key."""
        return {sent.job.key: sent.place for sent in self._sent.values()}

    def poll(self, timeout: float) -> list[Outcome]:
        """Return the jobs that ended, waiting at most `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while self._sent:
            self._ask()
            left = max(0.0, deadline - time.monotonic())
            ready, _ = self.ray.wait(list(self._sent), num_returns=1, timeout=min(left, _ASK))
            if ready:
                more, _ = self.ray.wait(list(self._sent), num_returns=len(self._sent), timeout=0)
                return [self._collect(reference) for reference in more]
            if left == 0.0:
                break
        return []

    def cancel(self, key: str, *, hard: bool = False) -> None:
        """Ask a job to end, or kill it; one that still waits is taken back."""
        self._asked = float("-inf")
        self._ask()
        for reference, sent in self._sent.items():
            if sent.job.key == key:
                sent.cancelled = True
                self.ray.get(self._signals.want.remote(key, Signal.DIE if hard else Signal.END))
                if sent.place == _WAITING:
                    self.ray.cancel(reference)
                elif hard and sent.kill_at is None:
                    sent.kill_at = time.monotonic() + UNHEARD

    def close(self) -> None:
        """End all jobs and wait until they have; those that do not end within the grace are killed."""
        patience = self.settings.grace + 2 * UNHEARD
        end_jobs(self, patience, patience)
        self.ray.shutdown()

    def _ask(self) -> None:
        """Ask where the jobs are, not too often, and have Ray kill those that do not do what is wanted."""
        now = time.monotonic()
        if now - self._asked < _ASK:
            return
        self._asked = now
        places = self.ray.get(self._signals.where.remote())
        for reference, sent in self._sent.items():
            sent.place = places.get(sent.job.key, _WAITING)
            if sent.kill_at is not None and now >= sent.kill_at:
                sent.kill_at = float("inf")
                self.ray.cancel(reference, force=True)

    def _collect(self, reference: Any) -> Outcome:
        sent = self._sent.pop(reference)
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return sent.outcome(error)
        return replace(outcome, reason=CANCELLED) if sent.cancelled and outcome.code != 0 else outcome


def _join(address: str) -> Any:
    """Join a cluster and return Ray.

    Raises:
        ConfigError: Ray is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("pool=ray", "ray") from error
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"There is no Ray cluster at pool.address={address}. Start one with `ray start --head`, or name another."
        ) from error
    return ray
