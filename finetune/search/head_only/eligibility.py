"""Eligibility for one process: whether trials of a sweep, or folds, differ in their head alone."""

from collections.abc import Iterator, Sequence

from finetune.config.settings.roots import TrainSettings
from finetune.errors import ConfigError
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.spaces.space_checks import covering
from finetune.search.sweep_plan import SweepPlan

# what a head is made with; of strategy, what leaves its phases at rest
GROUPS = ("head", "optimizer", "loss", "schedule", "strategy")


def obstacles(plan: SweepPlan, configs: TrialConfigs) -> list[str]:
    """Return why the trials cannot run in one process; nothing where they can."""
    return list(dict.fromkeys([*of_varied(plan, configs), *of_base(configs.settings({}))]))


def allowed(wanted: str, found: Sequence[str], key: str) -> bool:
    """Return whether something runs in this process, given what is in the way.

    Args:
        wanted: auto, true or false.
        found: What is in the way.
        key: The setting that says so.

    Raises:
        ConfigError: It is asked for, and cannot be.
    """
    if found and wanted == "true":
        raise ConfigError(f"{key}=true cannot be: {'; '.join(found)}. Set {key}=auto.")
    return wanted != "false" and not found


def of_varied(plan: SweepPlan, configs: TrialConfigs) -> list[str]:
    """Return what of a search stands in the way: what varies, and what is asked of trials."""
    return [*of_space(plan, configs), *of_search(plan)]


def of_strategy(settings: TrainSettings) -> Iterator[str]:
    """Yield a strategy that moves more than the head."""
    strategy = settings.strategy
    if not all(phase.backbone_frozen for phase in strategy.phases) or strategy.adapter is not None:
        yield f"strategy={strategy.name} moves more than the head"


def of_space(plan: SweepPlan, configs: TrialConfigs) -> Iterator[str]:
    """Yield what varies beside the head."""
    for dimension in plan.space.dimensions:
        group = dimension.key.split(".")[0]
        if dimension.key == "seed":
            if configs.settings({}).model.weights == "none":
                yield "seed varies the backbone's weights, which are random"
        elif group not in GROUPS or dimension.key == "strategy":
            yield f"{dimension.key} varies, and a head's features depend on it"
    for values in covering(plan.space, lambda key: key in GROUPS):
        yield from of_strategy(configs.settings(values))


def of_search(plan: SweepPlan) -> Iterator[str]:
    """Yield what is asked of trials that only a run can give."""
    for objective in plan.settings.objectives:
        if not objective.name.startswith("val/"):
            yield f"{objective.name} is measured by runs"
    if plan.settings.budget:
        yield "a budget is kept by runs"


def of_base(base: TrainSettings) -> Iterator[str]:
    """Yield what a run does that a bare loop over features does not."""
    for name, entry in base.callbacks.items():
        if entry:
            yield f"callbacks.{name} is set"
    usual = {"devices": 1, "num_nodes": 1, "accumulate": 1, "limit_batches": None, "precision": "32-true"}
    for name, value in usual.items():
        found = getattr(base.trainer, name)
        if found not in (value, str(value)):
            yield f"trainer.{name}={found}"
    if base.imbalance == "augment_minority":
        yield "imbalance=augment_minority"
    if base.label_noise == "drop_suspects":
        yield "label_noise=drop_suspects"
    if base.features.dtype != "float32":
        yield f"features.dtype={base.features.dtype}"
