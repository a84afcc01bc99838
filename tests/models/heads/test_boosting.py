"""Boosted trees in tensors say what scikit-learn's say, and are solved, stored and refused like other heads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from configured import settings_for
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from finetune.config.settings.phases import Phase, Strategy
from finetune.config.settings.training_groups import HeadSettings
from finetune.errors import ConfigError
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.heads.boosting import BoostedTrees, below, fit_boosted
from finetune.models.heads.fit import HeadExamples, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.settings import SolverSettings, head_settings
from finetune.models.network import build_network
from finetune.training.solved_head import HeadPlan, check_plan

BOOSTED = {
    "kind": "boosted", "hidden": 8, "dropout": 0.0, "standardize": False, "solver": "adaboost", "l2": None, "l1": None,
    "folds": 5, "rounds": 7, "tree_depth": 2,
}  # fmt: skip


@pytest.mark.parametrize(("classes", "depth"), [(2, 1), (2, 3), (5, 2)])
def test_votes_are_those_of_scikit_learn(classes: int, depth: int) -> None:
    images, targets = load_digits(return_X_y=True)
    kept = targets < classes
    features = (images[kept] / 3).astype(np.float32)  # thirds, which float32 rounds
    weights = np.random.default_rng(0).uniform(0.5, 2, kept.sum())
    trees = BoostedTrees(classes, rounds=12, depth=depth)
    fitted = fit_boosted(trees, features, targets[kept], weights, seed=0)
    reference = AdaBoostClassifier(DecisionTreeClassifier(max_depth=depth), n_estimators=12, random_state=0)
    reference.fit(features, targets[kept], sample_weight=weights)
    assert fitted == len(reference.estimators_)
    with torch.no_grad():
        said = trees(torch.from_numpy(features)).softmax(1).numpy()
    assert np.allclose(said, reference.predict_proba(features), atol=1e-5)


def test_a_threshold_is_rounded_so_that_no_value_changes_sides() -> None:
    for threshold in (0.1, 1 / 3, 0.5, -0.7, 1e-12):
        rounded = below(threshold)
        assert rounded <= threshold < float(np.nextafter(np.float32(rounded), np.float32(np.inf)))


def test_a_boosted_head_is_solved_and_stored_like_others(tmp_path: Path) -> None:
    spec, solver = head_settings(settings_for(HeadSettings, **(BOOSTED | {"standardize": True})), seed=0)
    assert solver is not None and solver.solver == "adaboost" and spec.rounds == 7
    network = build_network("test_resnet", num_classes=3, weights="none", head=spec).eval()
    features = torch.randn(90, network.num_features, generator=torch.Generator().manual_seed(0))
    targets = (features[:, 0] > 0).long() + (features[:, 1] > 0).long()
    solved = fit_head(network.head, spec, HeadExamples(features, targets, "multiclass", 3), solver)
    assert solved.iterations == 7
    with torch.no_grad():
        said = network.head(features)
        assert (said.argmax(1) == targets).float().mean() > 0.9
        save_bundle(network, ("a", "b", "c"), "multiclass", tmp_path)
        assert torch.equal(load_bundle(tmp_path).network.head(features), said)


def test_what_trees_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="no slopes for an optimizer"):
        head_settings(settings_for(HeadSettings, **(BOOSTED | {"solver": None})), seed=0)
    with pytest.raises(ConfigError, match="is none. Use head=boosting"):
        head_settings(settings_for(HeadSettings, **(BOOSTED | {"kind": "linear"})), seed=0)
    with pytest.raises(ConfigError, match="no meaning with boosted trees"):
        head_settings(settings_for(HeadSettings, **(BOOSTED | {"l2": 0.1})), seed=0)
    with pytest.raises(ConfigError, match="head.tree_depth=20 must be from 1 to 8"):
        build_head(HeadSpec("boosted", tree_depth=20), 4, 2)
    phase = Phase("probe", "head", epochs=1, features="cached")
    plan = HeadPlan(HeadSpec("boosted"), SolverSettings("adaboost"))
    check_plan(plan, [True], Strategy("frozen", (phase,)).name)
    with pytest.raises(ConfigError, match="strategy=lp_ft could move the backbone"):
        check_plan(plan, [True, False], "lp_ft")
    labels = torch.zeros(4, 2)
    with pytest.raises(ConfigError, match="exactly one label per image"):
        fit_head(build_head(HeadSpec("boosted"), 3, 2), HeadSpec("boosted"),
                   HeadExamples(torch.randn(4, 3), labels, "multilabel", 2), SolverSettings("adaboost"))  # fmt: skip
