"""Eligibility for one process: whether the trials of a sweep differ in their head alone."""

from collections.abc import Iterator

from finetune.config.settings.roots import TrainSettings
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.spaces.space_checks import covering
from finetune.search.sweep_plan import SweepPlan

# what a head is made with; of strategy, what leaves its phases at rest
GROUPS = ("head", "optimizer", "loss", "schedule", "strategy")


def obstacles(plan: SweepPlan, configs: TrialConfigs) -> list[str]:
    """Return why the trials cannot run in one process; nothing where they can."""
    base = configs.settings({})
    return list(dict.fromkeys([*of_space(plan, configs), *of_search(plan), *of_base(base)]))


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
        strategy = configs.settings(values).strategy
        if not all(phase.backbone_frozen for phase in strategy.phases) or strategy.adapter is not None:
            yield f"strategy={strategy.name} moves more than the head"


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
