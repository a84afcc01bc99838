"""Settings of a head, typed: what the head is, and what finds its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from finetune.config.settings.training_groups import HeadSettings
from finetune.data.table import LabelTask
from finetune.errors import ConfigError, nearest
from finetune.models.heads.modules import HeadSpec, check_spec

Solver = Literal["lbfgs", "proximal", "nearest_mean", "adaboost"]
SOLVERS = ("optimizer", "lbfgs", "proximal", "nearest_mean", "adaboost")


@dataclass(frozen=True)
class SolverSettings:
    """How a head's weights are found without the run's optimizer.

    Attributes:
        solver: lbfgs for a squared penalty, proximal for one that makes zeros, nearest_mean for class means, adaboost
            for boosted trees.
        l2: Strength of half the sum of squared weights; None to choose it by cross-validation, 0 for none.
        l1: Strength of the sum of absolute weights; None to choose it by cross-validation, 0 for none.
        folds: Folds of the cross-validation.
        seed: Seeds the folds.
    """

    solver: Solver
    l2: float | None = 0.0
    l1: float | None = 0.0
    folds: int = 5
    seed: int = 0


def head_settings(head: HeadSettings, *, seed: int) -> tuple[HeadSpec, SolverSettings | None]:
    """Return what the head is and how it is solved; None where the run's optimizer trains it.

    Args:
        head: The settings of the group head.
        seed: Of the run.

    Raises:
        ConfigError: A setting does not go with another.
    """
    spec = HeadSpec(**{entry.name: getattr(head, entry.name) for entry in fields(HeadSpec)})
    check_spec(spec)
    strengths = {name: check_strength(name, getattr(head, name)) for name in ("l2", "l1")}
    solver = choose_solver(head.solver, strengths)
    if solver == "optimizer":
        if spec.kind == "boosted":
            raise ConfigError("head.kind=boosted has no slopes for an optimizer. Type head=boosting alone.")
        return spec, None
    check_kind(spec, solver)
    l2, l1 = (None if strengths[name] == "cv" else strengths[name] or 0.0 for name in ("l2", "l1"))
    return spec, SolverSettings(solver, l2, l1, head.folds, seed)  # type: ignore[arg-type]


def check_strength(name: str, value: Any) -> Any:
    """Return a strength as None, cv or a number.

    Raises:
        ConfigError: It is none of these, or negative.
    """
    if value is None or value == "cv":
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"head.{name}={value} is not a strength. Use a number above 0, cv to choose it by cross-validation, or "
            f"null for none.{nearest(str(value), ('cv', 'null'))}"
        )
    return float(value)


def choose_solver(solver: str | None, strengths: Mapping[str, float | str | None]) -> str:
    """Return the solver that is named or, where none is, the one that the strengths ask for.

    Raises:
        ConfigError: There is no such solver, or it does not take these strengths.
    """
    l2, l1 = strengths["l2"], strengths["l1"]
    if solver is None:
        solver = "proximal" if l1 is not None else "lbfgs" if l2 is not None else "optimizer"
    if solver not in SOLVERS:
        raise ConfigError(
            f"head.solver={solver} is not known. Use {', '.join(SOLVERS)}, or null.{nearest(str(solver), SOLVERS)}"
        )
    given = [f"head.{name}={value}" for name, value in strengths.items() if value is not None]
    if solver == "optimizer" and given:
        raise ConfigError(
            f"{given[0]} needs a solver, and head.solver=optimizer is none. Set head.solver=null, or use "
            "optimizer.weight_decay instead."
        )
    if solver in ("nearest_mean", "adaboost") and given:
        what = "class means" if solver == "nearest_mean" else "boosted trees"
        raise ConfigError(f"{given[0]} has no meaning with {what}. Set it to null, or choose head=logistic.")
    if solver == "lbfgs" and (l1 is not None or not l2):
        raise ConfigError(
            "head.solver=lbfgs takes head.l2 alone, a number above 0 or cv. "
            + (f"With head.l1={l1} use head.solver=proximal." if l1 is not None else "Set head.l2=cv.")
        )
    if solver == "proximal":
        check_proximal(l2, l1)
    return solver


def check_proximal(l2: Any, l1: Any) -> None:
    """Check that a solution exists and that at most one strength is to be chosen.

    Raises:
        ConfigError: It does not, or both are.
    """
    if not l1:
        raise ConfigError(
            f"head.solver=proximal needs head.l1, a number above 0 or cv, and it is {'null' if l1 is None else l1}. "
            "Set head.l1=cv, or use head.solver=lbfgs."
        )
    if l2 == "cv":
        raise ConfigError("head.l2=cv does not go with head.l1. Give head.l2 as a number, or set it to null.")


def check_kind(spec: HeadSpec, solver: str) -> None:
    """Check that a solver can find the weights of such a head.

    Raises:
        ConfigError: It cannot.
    """
    kinds = {"nearest_mean": ("linear", "cosine"), "adaboost": ("boosted",)}.get(solver, ("linear",))
    if solver == "adaboost" and spec.kind != "boosted":
        raise ConfigError(f"head.solver=adaboost fits trees, and head.kind={spec.kind} is none. Use head=boosting.")
    if spec.kind not in kinds:
        raise ConfigError(
            f"head.solver={solver} cannot fit head.kind={spec.kind}, only {' and '.join(kinds)}. Set head.kind=linear, "
            "or head.solver=optimizer with head.l2=null head.l1=null."
        )
    if spec.dropout > 0:
        raise ConfigError(
            f"head.dropout={spec.dropout} has no meaning with head.solver={solver}. Set head.dropout=0: a strength "
            "regularises instead."
        )


def check_solver_task(settings: SolverSettings, task: LabelTask) -> None:
    """Check that the solver can fit the task.

    Raises:
        ConfigError: It cannot.
    """
    if settings.solver in ("nearest_mean", "adaboost") and task == "multilabel":
        raise ConfigError(
            f"head.solver={settings.solver} needs exactly one label per image, and these images have several. Use "
            "head=logistic."
        )


def check_loss(settings: SolverSettings, *, loss: str, convex: bool) -> None:
    """Check that the loss has the single optimum that a solver looks for; class means and trees use no loss.

    Args:
        settings: The solver.
        loss: The loss as the message calls it.
        convex: Whether it is convex in the logits.

    Raises:
        ConfigError: It is not convex.
    """
    if settings.solver not in ("nearest_mean", "adaboost") and not convex:
        raise ConfigError(
            f"head.solver={settings.solver} needs a loss with a single optimum, and {loss} is none. Use "
            "loss=cross_entropy (or loss=bce for several labels per image), or head.solver=optimizer."
        )
