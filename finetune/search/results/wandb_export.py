"""The same search as a W&B sweep file, for W&B's own agents to run."""

from pathlib import Path
from typing import Any

import yaml

from finetune.errors import ConfigError, nearest
from finetune.runs.run import write_atomic
from finetune.search.spaces.space import Dimension
from finetune.search.sweep_plan import SweepPlan

TARGETS = ("wandb",)
_METHODS = {"grid": "grid", "random": "random", "tpe": "bayes", "gp": "bayes"}


def write_export(plan: SweepPlan, target: str) -> str:
    """Write the file, and return what to do with it.

    Raises:
        ConfigError: There is no such target, or it has no word for a part of the search.
    """
    if target not in TARGETS:
        raise ConfigError(f"export={target} is not known. Use {', '.join(TARGETS)}.{nearest(target, TARGETS)}")
    file = Path(f"{plan.name}.sweep.yaml")
    text = yaml.safe_dump(wandb_sweep(plan), sort_keys=False, allow_unicode=True)
    write_atomic(file, f"# wandb sweep {file}\n{text}")
    return f"Wrote {file}. Start it with: wandb sweep {file}"


def wandb_sweep(plan: SweepPlan) -> dict[str, Any]:
    """Return the content of the file.

    Raises:
        ConfigError: W&B has no word for a part of the search.
    """
    settings = plan.settings
    if len(settings.objectives) > 1 or settings.budget:
        raise ConfigError("A W&B sweep has one metric and no budget. Set sweep.metric to one, and sweep.budget={}.")
    if settings.sampler not in _METHODS:
        raise ConfigError(
            f"W&B has no {settings.sampler}. Use one of {', '.join(f'sweep={name}' for name in _METHODS)}."
        )
    (objective,) = settings.objectives
    goal = {"max": "maximize", "min": "minimize"}[objective.direction]
    document: dict[str, Any] = {
        "name": plan.name,
        "program": "finetune",
        "method": _METHODS[settings.sampler],
        "metric": {"name": objective.name, "goal": goal},
        "run_cap": plan.trials,
        "parameters": {each.typed: parameter(each) for each in plan.space.dimensions},
        "command": ["${env}", "finetune", *plan.request.flags, *plan.fixed, "${args_no_hyphens}"],
    }
    if settings.pruner in ("asha", "hyperband"):
        options = settings.pruner_options
        document["early_terminate"] = {
            "type": "hyperband", "min_iter": int(options.get("min_resource", 1)),
            "eta": int(options.get("reduction_factor", 3)),
        }  # fmt: skip
    elif settings.pruner != "none":
        raise ConfigError(f"W&B has no pruner {settings.pruner}. Use sweep.pruner=hyperband, or none.")
    return document


def parameter(dimension: Dimension) -> dict[str, Any]:
    """Return a setting's values in W&B's words.

    Raises:
        ConfigError: It is tried under a condition, which W&B does not know.
    """
    if dimension.when:
        raise ConfigError(
            f"W&B sweeps know no conditions, and {dimension.key} is tried only where "
            f"{' and '.join(map(str, dimension.when))}. Write a space without when:."
        )
    if dimension.choices:
        return {
            "values": [choice.text if isinstance(choice.value, str) else choice.value for choice in dimension.choices]
        }
    if dimension.kind == "whole" and dimension.log:
        return {"distribution": "q_log_uniform_values", "min": dimension.low, "max": dimension.high, "q": 1}
    if dimension.kind == "whole" and dimension.step not in (None, 1):
        return {"values": list(range(int(dimension.low), int(dimension.high) + 1, int(dimension.step or 1)))}
    if dimension.kind == "whole":
        return {"distribution": "int_uniform", "min": int(dimension.low), "max": int(dimension.high)}
    kind = "log_uniform_values" if dimension.log else "uniform"
    return {"distribution": kind, "min": dimension.low, "max": dimension.high}
