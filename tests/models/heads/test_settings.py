"""The keys of the group head: what they select, and what does not go together."""

from typing import Any

import pytest
from configured import settings_for

from finetune.config.settings.training_groups import HeadSettings
from finetune.errors import ConfigError
from finetune.models.heads.modules import HeadSpec
from finetune.models.heads.settings import SolverSettings, check_loss, head_settings

LINEAR: dict[str, Any] = {
    "kind": "linear", "hidden": 512, "dropout": 0.0, "standardize": False, "solver": None, "l2": None, "l1": None,
    "folds": 5,
}  # fmt: skip


def test_default_head_is_trained_by_the_optimizer() -> None:
    assert head_settings(settings_for(HeadSettings, **LINEAR), seed=3) == (HeadSpec(), None)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"l2": 0.1}, SolverSettings("lbfgs", l2=0.1, seed=3)),
        ({"l2": "cv", "folds": 3}, SolverSettings("lbfgs", l2=None, folds=3, seed=3)),
        ({"l1": "cv"}, SolverSettings("proximal", l1=None, seed=3)),
        ({"l1": 0.1, "l2": 0.2}, SolverSettings("proximal", l2=0.2, l1=0.1, seed=3)),
        ({"solver": "nearest_mean"}, SolverSettings("nearest_mean", seed=3)),
        ({"solver": "nearest_mean", "kind": "cosine"}, SolverSettings("nearest_mean", seed=3)),
        ({"solver": "optimizer", "kind": "mlp", "dropout": 0.2}, None),
    ],
)
def test_strengths_select_the_solver(keys: dict[str, Any], expected: SolverSettings | None) -> None:
    assert head_settings(settings_for(HeadSettings, **(LINEAR | keys)), seed=3)[1] == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kind": "liner"}, "'linear'"),
        ({"solver": "lbgfs", "l2": 1}, "'lbfgs'"),
        ({"solver": "lbfgs", "l2": "cv", "kind": "mlp"}, "head.kind=mlp"),
        ({"l2": "cv", "kind": "cosine"}, "head.kind=cosine"),
        ({"solver": "nearest_mean", "kind": "mlp"}, "head.kind=mlp"),
        ({"l2": "cv", "dropout": 0.5}, "head.dropout=0.5"),
        ({"solver": "nearest_mean", "l2": 1.0}, "head.l2=1.0"),
        ({"solver": "optimizer", "l2": 1.0}, "weight_decay"),
        ({"solver": "lbfgs"}, "head.l2=cv"),
        ({"solver": "lbfgs", "l2": 0}, "above 0"),
        ({"solver": "lbfgs", "l1": 0.5}, "head.solver=proximal"),
        ({"solver": "proximal"}, "head.l1=cv"),
        ({"l1": "cv", "l2": "cv"}, "head.l2=cv"),
        ({"l2": -1}, "head.l2=-1"),
        ({"l1": float("nan")}, "head.l1=nan"),
        ({"l2": "vc"}, "'cv'"),
        ({"l2": True}, "head.l2=True"),
        ({"l2": "cv", "folds": 1}, "head.folds=1"),
    ],
)
def test_keys_that_do_not_go_together_are_one_clear_line(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        head_settings(settings_for(HeadSettings, **(LINEAR | keys)), seed=0)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_solver_refuses_a_loss_with_several_optima() -> None:
    settings = SolverSettings("lbfgs")
    check_loss(settings, loss="CrossEntropy", convex=True)
    check_loss(SolverSettings("nearest_mean"), loss="Focal", convex=False)
    with pytest.raises(ConfigError, match="Focal is none"):
        check_loss(settings, loss="Focal", convex=False)
