"""Weights & Biases: one tracked run per job, which tells the truth about its configuration, its best and its end."""

import logging
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from finetune.config.directions import DIRECTIONS, NETWORK_COSTS
from finetune.errors import ConfigError, nearest
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runs.wandb_connection import END, WANDB_MODES, first_line, open_wandb_run, resolve_mode

log = logging.getLogger(__name__)

CHECKPOINTS = {"none": (), "best": ("best",), "best_and_last": ("best", "last")}
NAME_LENGTH, TAG_LENGTH = 128, 64
STEP = "trainer/global_step"


class Tracker:
    """A run in W&B and the folder it belongs to.

    Attributes:
        logger: Lightning's logger over the run.
        id: The run's id, the same when it is continued.
        url: The run's page, None offline.
        folder: Where its files are until they are uploaded.
    """

    def __init__(self, tracked: "wandb.Run", run: Run, checkpoints: str, best_of: Mapping[str, str]) -> None:
        """Link an open W&B run with its folder.

        Args:
            tracked: The W&B run.
            run: The folder.
            checkpoints: Which are uploaded: none, best or best_and_last.
            best_of: Of which values the summary holds the best, and whether that is the max or the min.
        """
        from finetune.runs.wandb_logger import GuardedWandbLogger  # a sweep's own record needs no trainer

        self.tracked = tracked
        self.run = run
        self.checkpoints = checkpoints
        self.best_of = best_of
        self.logger = GuardedWandbLogger(self.attempt, experiment=tracked, save_dir=run.path)
        self.id = str(tracked.id)
        self.url = None if tracked.offline else tracked.url
        self.folder = Path(tracked.dir).parent
        self.finished = False
        self.lost = False

    def attempt(self, what: str, call: Callable[[], object]) -> None:
        """Hand something to the client; what it cannot take costs no run and is said once."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever the client dies of, the run goes on
            if not self.lost:
                later = f"Upload it later: wandb sync --no-skip-online {self.folder}"
                log.warning(
                    "W&B lacks %s of this run (%s: %s). %s", what, type(error).__name__, first_line(error), later
                )
            self.lost = True

    @property
    def how_to_view(self) -> str:
        """One line saying where the run can be looked at, and how it is uploaded."""
        if self.url:
            return f"W&B: {self.url}"
        place = self.folder.parent
        folder = shlex.quote(os.path.relpath(place) if place.is_relative_to(Path.cwd()) else str(place))
        return f"W&B offline: look at it with `wandb leet {folder}`, upload it with `wandb sync {folder}/offline-run-*`"

    def log_summary(self, values: dict[str, Any]) -> None:
        """Set final values, such as the test scores, beside the history."""
        self.attempt("final values", lambda: self.tracked.summary.update(values))

    def log_charts(self, charts: Mapping[str, Any]) -> None:
        """Add charts, tables and images, all in one step."""
        self.attempt("charts", lambda: self.tracked.log(dict(charts)))

    def upload_checkpoints(self) -> None:
        """Add the checkpoints that are there, each as a version of the run's model."""
        for alias in CHECKPOINTS[self.checkpoints]:
            file = self.run.checkpoints / f"{alias}.ckpt"
            if file.exists():
                metadata = {"run_folder": str(self.run.path), "checkpoint": alias}
                artifact = wandb.Artifact(f"model-{self.id}", type="model", metadata=metadata)
                artifact.add_file(str(file), name=file.name, skip_cache=True)
                self.tracked.log_artifact(artifact, aliases=[alias])

    def finish(self, exit_code: int) -> None:
        """Upload what is asked for and close the run with its exit status, once."""
        if self.finished:
            return
        self.finished = True
        with own_environment(self.run):
            self.attempt("checkpoints", self.upload_checkpoints)
            self.attempt("the best values", self._keep_best)
            self.attempt("its step", self._note_step)
            started = time.monotonic()
            self.attempt("its end", lambda: self.tracked.finish(exit_code=exit_code))
            if self.url and time.monotonic() - started >= END:
                log.warning(
                    "W&B has not taken all of this run in %.0f s. Upload the rest: wandb sync %s", END, self.folder
                )

    def _note_step(self) -> None:
        self.run.update(wandb={**self.run.record["wandb"], "next_step": self.tracked.step})

    def _keep_best(self) -> None:
        """Let the summary of a continued run know the epochs before; the client only knows its own."""
        if not self.run.record.get("resumed"):
            return
        rows = RunHistory(self.run.history_file).read()
        for name, which in self.best_of.items():
            values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
            if values:
                self.tracked.summary[name] = {which: max(values) if which == "max" else min(values)}


def start_wandb(
    run: Run,
    config: dict[str, Any],
    *,
    project: str,
    entity: str | None,
    mode: str,
    name: str,
    group: str | None,
    job_type: str,
    tags: Sequence[str],
    monitor: str,
    mode_of_monitor: str,
    checkpoints: str,
) -> Tracker | None:
    """Open a W&B run for a run folder, or continue the one it had; return None where W&B is disabled.

    Args:
        run: The run's folder, which all of the client's files go to.
        config: The whole resolved configuration.
        project: W&B project.
        entity: User or team; None for the default.
        mode: auto (online if logged in), online, offline or disabled; WANDB_MODE decides what auto is.
        name: Shown in W&B, cut at 128 characters.
        group: Runs that belong together.
        job_type: train, eval or sweep.
        tags: Words to filter by.
        monitor: Name of the monitored value.
        mode_of_monitor: max or min.
        checkpoints: Which are uploaded: none, best or best_and_last.

    Raises:
        ConfigError: An option is not known, online is asked for without being logged in, or the key is refused.
    """
    _check_options(mode, checkpoints, tags)
    with own_environment(run):
        resolved = resolve_mode(mode)
        if resolved == "disabled":
            return None
        known = run.record.get("wandb") or {}
        tracked = open_wandb_run(
            project=project,
            entity=entity,
            id=known.get("id") or f"{run.record['id']}{os.urandom(2).hex()}",
            name=name[:NAME_LENGTH],
            group=group,
            job_type=job_type,
            tags=list(tags),
            config={**config, "run_folder": str(run.path), "versions": run.record["versions"]},
            dir=str(run.path),
            mode=resolved,
            resume="allow" if known and resolved == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", quiet=True, x_save_requirements=False),
        )
    tracker = Tracker(tracked, run, checkpoints, define_metrics(tracked, monitor, mode_of_monitor))
    actual = "offline" if tracked.offline else resolved
    link = {"id": tracker.id, "url": tracker.url, "mode": actual, "folder": str(tracker.folder.relative_to(run.path))}
    run.update(wandb={**link, "first_step": continue_steps(tracked, run, known)})
    return tracker


def _check_options(mode: str, checkpoints: str, tags: Sequence[str]) -> None:
    """Check the options that the client would refuse late or not at all.

    Raises:
        ConfigError: One is wrong.
    """
    for key, value, choices in (("mode", mode, WANDB_MODES), ("checkpoints", checkpoints, tuple(CHECKPOINTS))):
        if value not in choices:
            near = nearest(value, choices)
            raise ConfigError(f"logger.wandb.{key}={value} is not known. Use {', '.join(choices)}.{near}")
    for tag in tags:
        if not 1 <= len(tag) <= TAG_LENGTH:
            raise ConfigError(f"A tag has 1 to {TAG_LENGTH} characters, and '{tag}' has {len(tag)}. Change tags=[…].")


@contextmanager
def own_environment(run: Run) -> Iterator[None]:
    """Keep the client's files in the run's folder while a block runs, then leave the environment as it was.

    Without this, checkpoints that wait to be uploaded and the client's logs are in the user's home, and the next run
    of the same process would inherit the folder of this one.
    """
    folder = run.path / "wandb"
    before = _client_variables()
    os.environ.update(WANDB_DATA_DIR=str(folder), WANDB_CACHE_DIR=str(folder / "cache"))
    for name, value in (("WANDB_ERROR_REPORTING", "false"), ("WANDB_SILENT", "true")):
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in _client_variables():
            del os.environ[name]
        os.environ.update(before)


def _client_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


def continue_steps(tracked: "wandb.Run", run: Run, known: Mapping[str, Any]) -> int:
    """Let the steps of a continued run go on where they were and return the first; a server knows it by itself."""
    if tracked.starting_step:
        return int(tracked.starting_step)
    rows = len(RunHistory(run.history_file).rows)
    # a run that was killed could not say where it was: each row of its history was a step
    step = int(known.get("next_step", known.get("first_step", 0) + rows)) if known else 0
    if step:
        tracked.log({}, step=step, commit=False)
    return step


def define_metrics(tracked: "wandb.Run", monitor: str, mode: str) -> dict[str, str]:
    """Let the summary hold the best of each validation value, not the last; return which is best, max or min."""
    best_of: dict[str, str] = {f"val/{name}": best for name, best in DIRECTIONS.items() if name not in NETWORK_COSTS}
    best_of[monitor] = mode
    tracked.define_metric(STEP)
    tracked.define_metric("*", step_metric=STEP, step_sync=True)
    for name, best in best_of.items():
        tracked.define_metric(name, summary=best, step_metric=STEP, step_sync=True)
    return best_of
