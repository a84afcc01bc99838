"""The plan of a cross-validation: its folds, what they share, and what is searched in them."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from finetune.config.resolve import resolve
from finetune.config.settings.data_groups import FoldSettings
from finetune.config.settings.roots import CrossvalRootSettings, TrainSettings
from finetune.config.settings.search_groups import PoolSettings
from finetune.errors import ConfigError, nearest
from finetune.search.command_line import Request
from finetune.search.head_only.eligibility import allowed, of_base, of_strategy, of_varied
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.sweep_plan import IN_PROCESS, make_sweep_plan
from finetune.search.sweep_plan import SweepPlan as SearchPlan

OWN = ("cv", "sweep", "space", "pool", "resume", "hydra")
# may be typed when a cross-validation goes on
CHANGEABLE = ("resume", "pool", "runs")
COMMAND = "crossval"


@dataclass(frozen=True)
class CrossvalPlan:
    """A cross-validation, ready to be run.

    Attributes:
        request: The command line.
        config: Its own settings, which are those of its run.
        base: The settings of a run that all folds share.
        folder: Of its run.
        settings: How images are dealt out.
        weights: How much each fold's model counts in their ensemble: skill or equal.
        inner: Folds within each fold, where settings vary.
        search: What varies in each fold and how it is searched; None where nothing varies.
        here: Whether the folds run in this process.
        pool: Settings of the group pool.
    """

    request: Request
    config: CrossvalRootSettings
    base: TrainSettings
    folder: Path
    settings: FoldSettings
    weights: str
    inner: int
    search: SearchPlan | None
    here: bool
    pool: PoolSettings


def make_crossval_plan(request: Request) -> CrossvalPlan:
    """Return the plan of a request, checked."""
    cfg = request.compose(COMMAND, [*request.own, *request.fixed], hydra=True)
    folder = Path(str(cfg.hydra.run.dir))
    task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config = resolve(task, CrossvalRootSettings, request.fixed, tell=True)
    cv = config.cv
    settings = FoldSettings(cv.kind, cv.folds, cv.repeats, cv.seed)
    searched = bool(request.swept or config.space.params)
    search = make_sweep_plan(request, COMMAND) if searched else None
    base = request.trial(search.space.fixed if search is not None else ())
    if search is not None:
        check_search(search, settings)
    return CrossvalPlan(
        request, config, base, folder, settings, cv.weights, cv.inner, search,
        runs_in_process(base, cv.in_process.lower(), search), config.pool,
    )  # fmt: skip


def runs_in_process(base: TrainSettings, wanted: str, search: SearchPlan | None) -> bool:
    """Return whether the folds run in this process: heads, on features that stand still.

    Raises:
        ConfigError: It is asked for, or needed, and cannot be.
    """
    if wanted not in IN_PROCESS:
        raise ConfigError(f"cv.in_process={wanted} is not one of {', '.join(IN_PROCESS)}.{nearest(wanted, IN_PROCESS)}")
    if wanted == "false" and search is None:
        return False
    found = [*of_strategy(base), *of_base(base)]
    if found and search is not None:
        raise ConfigError(
            f"A search within each fold works on cached features alone: {'; '.join(found)}. Choose strategy=frozen, or "
            "leave out what varies."
        )
    return allowed("auto" if search is not None else wanted, found, "cv.in_process")


def check_search(search: SearchPlan, settings: FoldSettings) -> None:
    """Check that what varies can be searched within folds.

    Raises:
        ConfigError: It cannot.
    """
    found = of_varied(search, TrialConfigs(search.request, search.space))
    if settings.kind == "bootstrap":
        found.append("cv=bootstrap has images twice, which folds within a fold would part")
    if len(search.settings.objectives) != 1:
        found.append("there is more than one objective, and a fold needs one best")
    if found:
        raise ConfigError(f"Settings cannot be searched within each fold: {'; '.join(found)}.")
