"""Predictions of labelled images by a stored run: of its own split, or of others, with drift, robustness and OOD."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from finetune.config.resolve import stored_settings
from finetune.config.settings.checked import read_target
from finetune.config.settings.review_roots import EvaluateSettings
from finetune.data.table import ImageStore
from finetune.errors import ConfigError
from finetune.evaluation.drift.drift_report import DriftSample, drift_of_run
from finetune.evaluation.drift.reference import sample_rows
from finetune.evaluation.image_files import ImageFiles, find_images, read_batches
from finetune.evaluation.images import EvaluationImages, ImagesGoneError, SourceChanges, Vocabulary, select_images
from finetune.evaluation.inference import Predictor
from finetune.evaluation.ood import ood_document
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.rerun_settings import pass_options, rerun_settings
from finetune.evaluation.robustness.corrupted_accuracy import Wrong, robustness_of
from finetune.models.bundle import load_bundle
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.uncertainty.ood.detector import FeaturesAndLogits

_Document = dict[str, Any]


class ScoredImages(NamedTuple):
    """What a run says of labelled images.

    Attributes:
        predictions: Of the images.
        facts: Which images they were, and how it was done.
        seen: The network and what reads the images; None where they were not needed.
        more: What was asked for besides, for metrics.json: robustness against corruptions, and ood, how well unlike
            images are told.
    """

    predictions: Predictions
    facts: _Document
    seen: tuple[Network, ImageStore] | None = None
    more: Mapping[str, _Document | None] = MappingProxyType({})


def predict_labelled(run: Run, settings: EvaluateSettings, seed: int, ways: Sequence[Wrong] = ()) -> ScoredImages:
    """Predict the run's own images, or others if data was overridden; says which they were and how it was done.

    With ways of corrupting them it also says how many answers stay right then, and with images of another folder how
    well these are told from the others.

    Raises:
        ConfigError: These are single images, and the run reads sequences.
    """
    split, typed = settings.split, {name: value for name, value in settings.data.items() if value is not None}
    changes = changes_of(typed)
    paths = [] if settings.ood_data is None else find_images(Path(settings.ood_data).expanduser(), "ood_data")
    bundle = load_bundle(run.model_dir)
    if paths and bundle.network.frames is not None:
        raise ConfigError("ood_data= names single images, and this run reads sequences of frames. Leave it out.")
    rerun = rerun_settings(run, settings.device, **pass_options(settings))
    try:
        selection = select_images(run, changes, split, Vocabulary(bundle.labels, bundle.task))
    except ImagesGoneError as error:
        if changes or ways or paths or not run.predictions_file(split).is_file():
            raise
        predictions = Predictions.load(run.predictions_file(split))
        note = f"{error} The metrics are recomputed from the stored predictions; the model was not run."
        return ScoredImages(
            predictions, {"images": "stored predictions", "data": {}, "fingerprint": None, "notes": [note]}
        )
    rows = selection.table.rows(split)
    sample = rows if bundle.detector is not None and bundle.detector.needs_features else sample_rows(rows)
    images = rerun.images(selection.table, bundle.network)
    found = Predictor(bundle.network, rerun.device_pass).split(images, split, rerun.views, sample=sample)
    predictions = Predictions.from_logits(selection.table, found.rows, bundle.calibrate(found.logits))
    resampling = {"resamples": settings.bootstrap, "seed": seed}
    files = ImageFiles(paths, bundle.network.spec, rerun.augment, rerun.views)
    others = read_batches(files, batch_size=rerun.batch_size, workers=min(rerun.workers, len(paths)))
    features = None if found.features is None else found.features[np.isin(sample, sample_rows(rows))]
    more = {
        "robustness": robustness_of(bundle, selection.table, split, ways, rerun, **resampling),
        "ood": ood_document(
            bundle, FeaturesAndLogits(found.features, found.logits), others, device_pass=rerun.device_pass,
            source=settings.ood_data, **resampling,
        ),
    }  # fmt: skip
    facts = {
        "images": "same" if selection.same else "other",
        "data": typed,
        "fingerprint": selection.table.fingerprint(),
        "notes": list(selection.notes),
        "device": str(rerun.device_pass.device),
        "precision": rerun.device_pass.precision,
        "views": rerun.views,
        "drift": _drift_of(run, selection, split, predictions, features),
    }
    return ScoredImages(predictions, facts, (bundle.network, selection.table.store), more)


def changes_of(typed: Mapping[str, Any]) -> SourceChanges:
    """Return what was typed of a data source; a source without a target holds arguments of the run's own."""
    arguments = dict(typed)
    given, unreadable = dict(arguments.pop("source", {})), arguments.pop("unreadable", None)
    if "_target_" in given:
        return SourceChanges(arguments, read_target("data.source", given), unreadable)
    return SourceChanges({**arguments, **given}, None, unreadable)


def _drift_of(
    run: Run, selection: EvaluationImages, split: str, predictions: Predictions, features: np.ndarray | None
) -> _Document | None:
    """Return how far the images are from those of validation; None where these are asked for, or those of training."""
    if selection.same and split != "test":
        return None
    new = DriftSample(features, predictions.probabilities)
    return drift_of_run(run, new, predictions.labels, predictions.task, seed=stored_settings(run.config).seed)
