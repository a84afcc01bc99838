"""From combined members to a model: calibrated, with a detector, and compared with its best member."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable
from finetune.ensembles.combine.member_inference import Runner
from finetune.ensembles.combine.members import MemberCandidate
from finetune.ensembles.combine.methods import UncalibratedEnsemble, ValidationScorer
from finetune.evaluation.calibrated import CalibratedPredictions, calibrate
from finetune.evaluation.compare.comparison import ComparedRun, Comparison, compare_runs, short_name
from finetune.evaluation.predictions import Predictions
from finetune.models.fingerprint import backbone_identity
from finetune.runs.run import Run
from finetune.uncertainty.ood.detector import Detector
from finetune.uncertainty.scaling import FittedScaling, Method, Scaling

log = logging.getLogger(__name__)
_UNSCALED = FittedScaling(
    Scaling(), "none", float("nan"), float("nan"), "There are no validation images to calibrate on."
)


def with_predictions(candidate: MemberCandidate, runner: Runner) -> MemberCandidate:
    """Return a model with what it says of validation and test, by passing the images through it."""
    said = {}
    for split in ("val", "test"):
        table, found = runner.outputs(candidate.bundle.network, split)
        said[split] = Predictions.from_logits(table, found.rows, candidate.bundle.calibrate(found.logits))
    return replace(candidate, val=said["val"], test=said["test"])


def calibrate_joined(
    joined: UncalibratedEnsemble, runner: Runner, table: ImageTable, method: Method, seed: int, *, crossed: bool
) -> CalibratedPredictions:
    """Return what an ensemble says of validation and test, scaled as suits validation.

    Args:
        joined: The ensemble; where no answers of its members are stored, images are passed through it.
        runner: Passes images.
        table: The first run's images.
        method: none, temperature or vector.
        seed: Deals validation images out to folds.
        crossed: Whether the members have learnt from the validation images, which are then left out.
    """
    outputs = {split: (rows_of(table, known), logits) for split, (known, logits) in joined.stored.items()}
    if not outputs:
        for split in ("test",) if crossed else ("val", "test"):
            found = runner.outputs(joined.network, split)[1]
            outputs[split] = (table.rows(split)[found.rows], found.logits)
    if "val" not in outputs:
        plain = {split: Predictions.from_logits(table, *found) for split, found in outputs.items()}
        return CalibratedPredictions(plain, _UNSCALED, {})
    return calibrate(table, outputs, method, seed)


def rows_of(table: ImageTable, predictions: Predictions) -> npt.NDArray[np.int64]:
    """Return the rows (N,) of a table that predictions are of."""
    place = {name: row for row, name in enumerate(table.frame["id"].tolist())}
    return np.array([place[name] for name in predictions.ids.tolist()], np.int64)


def shared_detector(joined: UncalibratedEnsemble, candidates: Sequence[MemberCandidate]) -> Detector | None:
    """Return what tells the first model images unlike those of training, where the ensemble has that model's backbone.

    With several backbones, or averaged ones, nothing is known of the features that come of them.
    """
    first = candidates[0].bundle
    if first.detector is None or not first.detector.needs_features:
        return None
    if backbone_identity(joined.network) != backbone_identity(first.network):
        log.info("The ensemble's features are not those of %s: it does not say which images are unlike those of "
                 "training.", candidates[0].name)  # fmt: skip
        return None
    return first.detector


def against_best(
    candidates: Sequence[MemberCandidate],
    joined: UncalibratedEnsemble,
    judge: ValidationScorer,
    predictions: dict[str, Predictions],
    run: Run,
    own: TrainSettings,
) -> Comparison | None:
    """Return the ensemble beside its best member, chosen on validation; None where members have no stored answers."""
    able = [each for each in candidates if each.val is not None and each.test is not None]
    if len(able) < len(candidates):
        return None
    best = max(able, key=lambda each: judge(each.val) if each.val is not None else (-np.inf, -np.inf))
    assert best.test is not None
    mine = ComparedRun(short_name(run.path), run.path, predictions["test"])
    theirs = ComparedRun(best.name, best.run.path, best.test)
    return compare_runs([theirs, mine], "test", common=False, resamples=own.bootstrap, seed=own.seed)
