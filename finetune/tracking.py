"""Weights & Biases: one tracked run per job, which tells the truth about its configuration, its best and its end.

It decides how a run is opened, continued, linked with its folder and closed; which values are logged is the callbacks'.
"""

import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from finetune.errors import ConfigError, RunError, nearest
from finetune.runs import Run

Mode = Literal["auto", "online", "offline", "disabled"]
MODES = ("auto", "online", "offline", "disabled")
CHECKPOINTS = ("none", "best", "best_and_last")
NAME_LENGTH = 128
STEP = "trainer/global_step"
# values of which less is better
LOWER_IS_BETTER = ("loss", "calibration_error")


class Tracker:
    """A run in W&B and the folder it belongs to.

    Attributes:
        logger: Lightning's logger over the run.
        id: The run's id, the same when it is continued.
        url: The run's page, None offline.
        folder: Where its files are until they are uploaded.
    """

    def __init__(self, tracked: "wandb.Run", run: Run, checkpoints: str) -> None:
        """Link an open W&B run with its folder."""
        self.tracked = tracked
        self.run = run
        self.checkpoints = checkpoints
        self.logger = WandbLogger(experiment=tracked)
        self.id = str(tracked.id)
        self.offline = bool(tracked.offline)
        self.url = None if self.offline else tracked.url
        self.folder = Path(tracked.dir).parent
        self.finished = False

    @property
    def how_to_view(self) -> str:
        """One line saying where the run can be looked at."""
        if self.url:
            return f"W&B: {self.url}"
        folder = _relative(self.folder)
        return f"W&B offline: look at it with `wandb leet {folder}`, upload it with `wandb sync {folder}`"

    def log_summary(self, values: dict[str, Any]) -> None:
        """Set final values, such as the test scores, beside the history."""
        self.tracked.summary.update(values)

    def log_images(self, images: Sequence[tuple[Path | Image.Image, str]], key: str) -> None:
        """Upload images with captions; only ever called when the user asked for it."""
        self.tracked.log({key: [wandb.Image(image if isinstance(image, Image.Image) else str(image), caption=text) for image, text in images]})

    def upload_checkpoints(self) -> None:
        """Add the checkpoints that are there, as one artifact of the type model each."""
        wanted = {"none": (), "best": ("best",), "best_and_last": ("best", "last")}[self.checkpoints]
        for alias in wanted:
            file = self.run.checkpoints / f"{alias}.ckpt"
            if file.exists():
                artifact = wandb.Artifact(f"model-{self.id}", type="model", metadata={"run_folder": str(self.run.path), "checkpoint": alias})
                artifact.add_file(str(file), name=file.name)
                self.tracked.log_artifact(artifact, aliases=[alias])

    def finish(self, exit_code: int) -> None:
        """Upload what is asked for and close the run with its exit status, once."""
        if self.finished:
            return
        self.finished = True
        os.environ["WANDB_DATA_DIR"] = str(self.run.path / "wandb")
        self.upload_checkpoints()
        self.tracked.finish(exit_code=exit_code)


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
) -> Tracker:
    """Open a W&B run for a run folder, or continue the one it had.

    Args:
        run: The run's folder; all files of the tracker are in it, so that a moved folder can still be uploaded.
        config: The whole resolved configuration.
        project: W&B project; WANDB_PROJECT comes before it.
        entity: User or team; None for the default.
        mode: auto (online if logged in), online, offline or disabled; WANDB_MODE comes before auto.
        name: Shown in W&B, cut at 128 characters.
        group: Runs that belong together.
        job_type: train, eval or sweep.
        tags: Words to filter by.
        monitor: Name of the monitored value.
        mode_of_monitor: max or min.
        checkpoints: Which are uploaded: none, best or best_and_last.

    Raises:
        ConfigError: An option is not known, or online is asked for without being logged in.
        RunError: The server cannot be reached.
    """
    for key, value, choices in (("mode", mode, MODES), ("checkpoints", checkpoints, CHECKPOINTS)):
        if value not in choices:
            raise ConfigError(f"logger.wandb.{key}={value} is not known. Use {', '.join(choices)}.{nearest(value, choices)}")
    resolved = resolve_mode(mode)
    known = (run.record.get("wandb") or {}).get("id")
    identity = known or f"{run.record['id']}{os.urandom(2).hex()}"
    folder = run.path / "wandb"
    folder.mkdir(exist_ok=True)
    os.environ["WANDB_DATA_DIR"] = str(folder)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or project,
            entity=os.environ.get("WANDB_ENTITY") or entity,
            id=identity,
            name=name[:NAME_LENGTH],
            group=group,
            job_type=job_type,
            tags=list(tags),
            config={**config, "run_folder": str(run.path)},
            dir=str(run.path),
            mode=resolved,  # type: ignore[arg-type]
            resume="allow" if known and resolved == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", quiet=True),
        )
    except wandb.errors.UsageError as error:
        raise ConfigError(f"W&B refuses to start online: {_first(error)} Log in (wandb login), or set logger.wandb.mode=offline.") from error
    except (wandb.errors.CommError, wandb.errors.Error) as error:
        raise RunError(f"The W&B server cannot be reached: {_first(error)} Set logger.wandb.mode=offline and upload later with wandb sync.") from error
    define_metrics(tracked, monitor, mode_of_monitor)
    tracker = Tracker(tracked, run, checkpoints)
    run.update(wandb={"id": tracker.id, "url": tracker.url, "folder": str(tracker.folder.relative_to(run.path)) if tracker.folder.is_relative_to(run.path) else None, "mode": resolved})
    return tracker


def define_metrics(tracked: "wandb.Run", monitor: str, mode: str) -> None:
    """Let the summary hold the best of each validation value, not the last."""
    tracked.define_metric(STEP)
    tracked.define_metric("*", step_metric=STEP, step_sync=True)
    names = ["loss", "accuracy", "accuracy_top5", "precision_macro", "recall_macro", "f1_macro", "f1_micro"]
    names += ["exact_match", "roc_auc", "average_precision", "calibration_error"]
    for name in names:
        best = "min" if name in LOWER_IS_BETTER else "max"
        tracked.define_metric(f"val/{name}", summary=mode if f"val/{name}" == monitor else best, step_metric=STEP, step_sync=True)


def resolve_mode(mode: str) -> str:
    """Return online, offline or disabled: what WANDB_MODE says, else online exactly if the user is logged in."""
    if mode != "auto":
        return mode
    said = os.environ.get("WANDB_MODE")
    if said in ("online", "offline", "disabled"):
        return said
    return "online" if is_logged_in() else "offline"


def is_logged_in() -> bool:
    """Return whether there is a key for the W&B server: in the environment, or from `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(str(wandb.Settings().base_url)).hostname or ""
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _first(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{text[0].rstrip('.')}." if text else f"{type(error).__name__}."


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
