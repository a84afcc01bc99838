"""What comes of a cross-validation: out-of-fold predictions, scores with their spread, and the ensemble of all folds.

It decides what stands for validation and for test in the run's folder; how an ensemble is stored and how a run ends is
`finetune.models`' and `finetune.report`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from finetune.commands.run_end import write_results
from finetune.data.folds import FoldSettings, pool_of
from finetune.data.table import ImageTable, objects
from finetune.ensembles.crossval.crossval_plan import CrossvalPlan
from finetune.ensembles.crossval.in_process import FoldResult
from finetune.ensembles.crossval.member_weights import fold_weights
from finetune.ensembles.crossval.ood import fit_fold_ood
from finetune.evaluation.calibrated import Calibrated, described
from finetune.evaluation.fold_scores import fold_document, out_of_fold
from finetune.evaluation.inference import predict_loader
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import join
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.precision import choose_precision
from finetune.training.build import load_images, open_cache
from finetune.training.trainer import device_of
from finetune.uncertainty.ood.detector import FeaturesAndLogits
from finetune.uncertainty.scaling import Fitted, Scaling

_Config = dict[str, Any]
UNTOUCHED = Fitted(Scaling(), "none", float("nan"), float("nan"), "Each member is calibrated by itself.")
_SHOWN = ("accuracy", "exact_match", "f1_macro", "roc_auc", "average_precision", "loss", "calibration_error")


def conclude(
    run: Run, plan: CrossvalPlan, table: ImageTable, results: Sequence[FoldResult]
) -> tuple[dict[str, Any], Predictions, Network]:
    """Write what a cross-validation has found, and return its metrics, the predictions called test, and the ensemble.

    The predictions of held-out images are called val, and test are those that the ensemble makes of the test split;
    where there is no test split, those of held-out images are called test.
    """
    config, predictions = plan.config, [result.predictions for result in results]
    unseen = out_of_fold(predictions, pool_of(table).frame["id"].tolist())
    weights = fold_weights(predictions, plan.weights)
    network = join([result.member for result in results], "mean", table.task, weights)
    detector, seen = fit_fold_ood(network, table, config)
    splits = {"test": unseen}
    if len(table.rows("test")):
        tested, seen["test"] = _predict(network, table, "test", config)
        splits = {"val": unseen, "test": tested}
    calibration = described(UNTOUCHED, splits, splits) if "val" in splits else {}
    document = write_results(
        run,
        config,
        network,
        Calibrated(splits, UNTOUCHED, calibration),
        detector,
        seen,
        more={"cv": {**_folds_of(results, plan.settings, splits), "weights": weights.tolist()}},
    )
    return document, splits["test"], network


def _folds_of(
    results: Sequence[FoldResult], settings: FoldSettings, splits: Mapping[str, Predictions]
) -> dict[str, Any]:
    """Return what metrics.json says of the folds."""
    independent = settings.kind != "bootstrap"
    found = fold_document(
        [each.predictions for each in results], [each.learnt for each in results], independent=independent
    )
    name = "val" if "val" in splits else "test"
    found |= {"kind": settings.kind, "repeats": settings.repeats, "out_of_fold": name, "images": splits[name].num}
    if any(each.settings for each in results):
        found["settings"] = [list(each.settings) for each in results]
    return found


def _predict(network: Network, table: ImageTable, split: str, config: _Config) -> tuple[Predictions, FeaturesAndLogits]:
    """Return what a network says of a split, in as many views as the configuration asks for, and its features."""
    images = load_images(config, table, network, open_cache(config["cache"]))
    device = device_of(config["trainer"]["accelerator"])
    precision = choose_precision(config["trainer"]["precision"], device)
    parts = [
        predict_loader(network, images.view_loader(split, view), device=device, precision=precision, sample=sample)
        for view, sample in enumerate([table.rows(split)] + [None] * (config["features"]["test_views"] - 1))
    ]
    network.cpu()
    logits = np.stack([part.logits for part in parts])
    return Predictions.from_logits(table, parts[0].rows, logits), FeaturesAndLogits(parts[0].features, logits)


def crossval_table(table: ImageTable) -> ImageTable:
    """Return the images as the run keeps them: the ensemble has learnt from all but those of the test split."""
    splits = ["test" if split == "test" else "train" for split in table.frame["split"].tolist()]
    return replace(table, frame=table.frame.assign(split=objects(splits)))


def crossval_lines(document: Mapping[str, Any]) -> Group:
    """Return the scores of the folds for the screen."""
    cv = document["cv"]
    head = Text(f"{cv['folds']} folds; {cv['images']:,} images, each predicted by models that have not seen it")
    shown = Table(box=None, pad_edge=False)
    for heading in ("score", "mean of folds", "spread", "95 % interval of the mean"):
        shown.add_column(heading, justify="left" if heading == "score" else "right", no_wrap=True)
    for name in [name for name in _SHOWN if name in cv["metrics"]]:
        entry = cv["metrics"][name]
        interval = f"{_number(entry['low'])} to {_number(entry['high'])}"
        shown.add_row(name.replace("_", " "), _number(entry["mean"]), _number(entry["spread"]), interval)
    return Group(head, *([shown] if cv["metrics"] else []))


def _number(value: float | None) -> str:
    """Return a score in four digits."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.4f}"
