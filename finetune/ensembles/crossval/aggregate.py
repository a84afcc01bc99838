"""Cross-validation results: out-of-fold predictions, scores with their spread, and the ensemble of all folds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune.config.settings.data_groups import FoldSettings
from finetune.config.settings.roots import TrainSettings
from finetune.data.folds import crossval_pool
from finetune.data.table import ImageTable, object_column
from finetune.ensembles.crossval.crossval_plan import CrossvalPlan
from finetune.ensembles.crossval.in_process import FoldResult
from finetune.ensembles.crossval.member_weights import fold_weights
from finetune.ensembles.crossval.ood import fit_fold_ood
from finetune.evaluation.calibrated import CalibratedPredictions, FinishedModel, calibration_document
from finetune.evaluation.fold_scores import fold_document, out_of_fold
from finetune.evaluation.inference import Predictor
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import join_networks
from finetune.models.network import Network
from finetune.runtime.device import DevicePass, accelerator_device
from finetune.training.build import load_images, open_cache
from finetune.uncertainty.ood.detector import FeaturesAndLogits
from finetune.uncertainty.scaling import FittedScaling, Scaling

UNTOUCHED = FittedScaling(Scaling(), "none", float("nan"), float("nan"), "Each member is calibrated by itself.")


def aggregate_folds(plan: CrossvalPlan, table: ImageTable, results: Sequence[FoldResult]) -> FinishedModel:
    """Return the ensemble of all folds, with the predictions of held-out images.

    These are called val, and test are those that the ensemble makes of the test split; where there is no test split,
    those of held-out images are called test.
    """
    settings, predictions = plan.config, [result.predictions for result in results]
    unseen = out_of_fold(predictions, crossval_pool(table).frame["id"].tolist())
    weights = fold_weights(predictions, plan.weights)
    network = join_networks([result.member for result in results], "mean", table.task, weights)
    detector, seen = fit_fold_ood(network, table, settings)
    splits = {"test": unseen}
    if len(table.rows("test")):
        tested, seen["test"] = _predict_test(network, table, settings)
        splits = {"val": unseen, "test": tested}
    calibration = calibration_document(UNTOUCHED, splits, splits) if "val" in splits else {}
    facts = {"cv": {**_folds_of(results, plan.settings, splits), "weights": weights.tolist()}}
    return FinishedModel(network, CalibratedPredictions(splits, UNTOUCHED, calibration), table, detector, seen, facts)


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


def _predict_test(
    network: Network, table: ImageTable, settings: TrainSettings
) -> tuple[Predictions, FeaturesAndLogits]:
    """Return what a network says of the test split, in as many views as the settings ask for, and its features."""
    images = load_images(settings, table, network, open_cache(settings.cache))
    device_pass = DevicePass(accelerator_device(settings.trainer.accelerator), settings.trainer.precision)
    found = Predictor(network, device_pass).split(images, "test", settings.tta_views, sample=table.rows("test"))
    network.cpu()
    return Predictions.from_logits(table, found.rows, found.logits), found.of_sample


def crossval_table(table: ImageTable) -> ImageTable:
    """Return the images as the run keeps them: the ensemble has learnt from all but those of the test split."""
    splits = ["test" if split == "test" else "train" for split in table.frame["split"].tolist()]
    return replace(table, frame=table.frame.assign(split=object_column(splits)))
