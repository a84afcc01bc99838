"""Weights & Biases: one tracked run per job, which tells the truth about its configuration, its best and its end."""

import logging
import math
import netrc
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from finetune.errors import ConfigError, RunError, nearest
from finetune.runs.history import RunHistory
from finetune.runs.run import Run

log = logging.getLogger(__name__)

_MODES = ("auto", "online", "offline", "disabled")
CHECKPOINTS = {"none": (), "best": ("best",), "best_and_last": ("best", "last")}
NAME_LENGTH, TAG_LENGTH = 128, 64
OFFLINE = "or set logger.wandb.mode=offline and upload later with wandb sync."
STEP = "trainer/global_step"
VALIDATED = (
    "loss", "accuracy", "accuracy_top5", "precision_macro", "recall_macro", "f1_macro", "f1_micro", "exact_match",
    "roc_auc", "average_precision", "calibration_error",
)  # fmt: skip
_LOWER_IS_BETTER = ("loss", "calibration_error")


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
        from pytorch_lightning.loggers import WandbLogger  # a sweep's own record needs no trainer

        self.tracked = tracked
        self.run = run
        self.checkpoints = checkpoints
        self.best_of = best_of
        self.logger = WandbLogger(experiment=tracked, save_dir=run.path)
        self.id = str(tracked.id)
        self.url = None if tracked.offline else tracked.url
        self.folder = Path(tracked.dir).parent
        self.finished = False

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
        self.tracked.summary.update(values)

    def log_charts(self, charts: Mapping[str, Any]) -> None:
        """Add charts, tables and images, all in one step."""
        self.tracked.log(dict(charts))

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
            try:
                self.upload_checkpoints()
                self._keep_best()
                self.run.update(wandb={**self.run.record["wandb"], "next_step": self.tracked.step})
            except OSError as error:
                log.warning("W&B lacks the checkpoints or the best values of this run: %s", error)
            finally:
                self.tracked.finish(exit_code=exit_code)

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
        ConfigError: An option is not known, or online is asked for without being logged in.
        RunError: The server cannot be reached or refuses the run.
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
    link = {"id": tracker.id, "url": tracker.url, "mode": resolved, "folder": str(tracker.folder.relative_to(run.path))}
    run.update(wandb={**link, "first_step": continue_steps(tracked, run, known)})
    return tracker


def _check_options(mode: str, checkpoints: str, tags: Sequence[str]) -> None:
    """Check the options that the client would refuse late or not at all.

    Raises:
        ConfigError: One is wrong.
    """
    for key, value, choices in (("mode", mode, _MODES), ("checkpoints", checkpoints, tuple(CHECKPOINTS))):
        if value not in choices:
            near = nearest(value, choices)
            raise ConfigError(f"logger.wandb.{key}={value} is not known. Use {', '.join(choices)}.{near}")
    for tag in tags:
        if not 1 <= len(tag) <= TAG_LENGTH:
            raise ConfigError(f"A tag has 1 to {TAG_LENGTH} characters, and '{tag}' has {len(tag)}. Change tags=[…].")


def open_wandb_run(**options: Any) -> "wandb.Run":
    """Open a W&B run, with the client's errors as ours.

    Raises:
        ConfigError: The key or an option is refused.
        RunError: The server cannot be reached or refuses the run.
    """
    try:
        return wandb.init(**options)
    except wandb.errors.AuthenticationError as error:
        raise ConfigError(f"W&B refuses the key: {_first(error)} Log in (wandb login --relogin), {OFFLINE}") from error
    except wandb.errors.UsageError as error:
        raise ConfigError(f"W&B refuses the run: {_first(error)} Change logger.wandb, {OFFLINE}") from error
    except wandb.errors.Error as error:
        server = wandb.setup().settings.base_url
        raise RunError(f"The W&B server {server} gives no run: {_first(error)} Try again, {OFFLINE}") from error


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
    best_of = {f"val/{name}": "min" if name in _LOWER_IS_BETTER else "max" for name in VALIDATED}
    best_of[monitor] = mode
    tracked.define_metric(STEP)
    tracked.define_metric("*", step_metric=STEP, step_sync=True)
    for name, best in best_of.items():
        tracked.define_metric(name, summary=best, step_metric=STEP, step_sync=True)
    return best_of


def resolve_mode(mode: str) -> str:
    """Return online, offline or disabled; auto is what WANDB_MODE says, else online exactly if the user is logged in.

    Raises:
        ConfigError: Online is asked for without being logged in, or WANDB_MODE is not known.
    """
    said = os.environ.get("WANDB_MODE", "") if mode == "auto" else mode
    if not said:
        return "online" if is_logged_in() else "offline"
    if said not in _MODES[1:]:
        raise ConfigError(f"WANDB_MODE={said} is not known. Use {', '.join(_MODES[1:])}.{nearest(said, _MODES[1:])}")
    if said == "online" and not is_logged_in():
        raise ConfigError(f"W&B is to be online, but there is no key for it. Log in (wandb login), {OFFLINE}")
    return said


def is_logged_in() -> bool:
    """Return whether there is a key for the W&B server: in the environment, in its settings, or from `wandb login`."""
    settings = wandb.setup().settings
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or settings.api_key:
        return True
    hosts = [urlsplit(server := str(settings.base_url)).netloc]
    if server == str(wandb.Settings().base_url):
        hosts.append("api.wandb.ai")  # the key of the public server is stored under this name, whatever its address
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        return any(netrc.netrc(str(file)).authenticators(host) is not None for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _first(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{text[0].rstrip('.')}." if text else f"{type(error).__name__}."
