"""finetune evaluate: what a stored run says of its own images, or of others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from finetune.config.resolve import resolve, stored_settings
from finetune.config.settings.checked import read_target
from finetune.config.settings.review_roots import EvaluateSettings
from finetune.data.table import ImageStore
from finetune.errors import ConfigError
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.drift.drift_report import Sample, drift_of_run
from finetune.evaluation.drift.reference import sampled
from finetune.evaluation.drift.timeline import timeline
from finetune.evaluation.explain.explain_run import explain_run
from finetune.evaluation.fairness.group_metrics import groups_document
from finetune.evaluation.fairness.partition import check_group_columns
from finetune.evaluation.images import ImagesGoneError, Selection, SourceChanges, Vocabulary, select_images
from finetune.evaluation.inference import Predictor
from finetune.evaluation.ood import unlike_document
from finetune.evaluation.prediction_table import ImageFiles, find_images, read_batches
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.rerun_settings import pass_options, rerun_settings
from finetune.evaluation.robustness.corrupted_accuracy import Wrong
from finetune.evaluation.robustness.corruptions import check_corruptions
from finetune.models.bundle import Bundle, load_bundle
from finetune.models.network import Network
from finetune.report.console.evaluation_console import (
    difference_table,
    show_drift,
    show_unlike,
    show_weakest,
    timeline_table,
)
from finetune.report.console.robustness_console import robustness_of, show_robustness
from finetune.report.run_page import attempt, write_evaluation
from finetune.runs.run import Run, write_json
from finetune.uncertainty.ood.detector import FeaturesAndLogits

_Document = dict[str, Any]
Used = tuple[Network, ImageStore]


class Scored(NamedTuple):
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
    seen: Used | None = None
    more: Mapping[str, _Document | None] = MappingProxyType({})


def evaluate(cfg: DictConfig) -> None:
    """Recompute predictions and metrics of a stored run, write them beside the old ones and print the difference.

    Without data overrides the images are the very ones of the run's split. With them (data.root=…, data.path=…, or a
    whole data.source) other images are scored. Where the run's own images are gone, the metrics are recomputed from
    the stored predictions, and said to be. With robustness=true all images are also scored with something wrong, and
    with ood_data=… it says how well images of a folder are told from these.

    Raises:
        ConfigError: The run or a setting is not there.
        DataError: The run's images have changed, or other images do not fit the run's labels.
    """
    settings = resolve(cfg, EvaluateSettings)
    console = Console()
    run = Run.find(settings.run, Path(settings.runs))
    split, own = settings.split, stored_settings(run.config)
    ways = check_corruptions(settings.corruptions, settings.severities) if settings.robustness else ()
    seed = settings.seed if settings.seed is not None else own.seed
    predictions, facts, seen, more = predict_labelled(run, replace(settings, seed=seed), seed, ways)
    document = metrics_document({split: predictions}, resamples=settings.bootstrap, seed=seed)
    groups = check_group_columns(settings.groups, list(map(str, predictions.groups.columns)))
    document["groups"] = groups_document({split: predictions}, groups, resamples=settings.bootstrap, seed=seed)
    document |= {name: found for name, found in more.items() if found}
    folder = _new_folder(run.path / "evaluations")
    predictions.save(folder / "predictions" / f"{split}.parquet")
    write_json(folder / "metrics.json", document)
    write_json(folder / "evaluation.json", {"created": now().isoformat(), "split": split, "seed": seed, **facts})
    for note in facts["notes"]:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(difference_table(run.metrics.get(split, {}), document[split], split, predictions.num))
    show_weakest(document["groups"][split], console)
    show_drift(facts.get("drift"), console)
    show_robustness(more.get("robustness"), console)
    show_unlike(more.get("ood"), console)
    if facts["images"] == "other":
        console.print(timeline_table(timeline(run), console.width))
    if settings.report:
        if seen is not None:
            attempt(
                partial(explain_run, folder, *seen, predictions, own.explain, own.seed),
                "Maps of what the network looks at",
            )
        store = seen[1] if seen is not None else None
        attempt(lambda: write_evaluation(run, folder, {split: predictions}, document, store), "The report")
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


def predict_labelled(run: Run, settings: EvaluateSettings, seed: int, ways: Sequence[Wrong] = ()) -> Scored:
    """Predict the run's own images, or others if data was overridden; says which they were and how it was done.

    With ways of corrupting them it also says how many answers stay right then, and with images of another folder how
    well these are told from the others.
    """
    split, typed = settings.split, {name: value for name, value in settings.data.items() if value is not None}
    changes = changes_of(typed)
    paths = [] if settings.ood_data is None else find_images(Path(settings.ood_data).expanduser(), "ood_data")
    bundle = load_bundle(run.model_dir)
    check_single(bundle, paths)
    rerun = rerun_settings(run, settings.device, **pass_options(settings))
    try:
        selection = select_images(run, changes, split, Vocabulary(bundle.labels, bundle.task))
    except ImagesGoneError as error:
        if changes or ways or paths or not run.predictions_file(split).is_file():
            raise
        predictions = Predictions.load(run.predictions_file(split))
        note = f"{error} The metrics are recomputed from the stored predictions; the model was not run."
        return Scored(predictions, {"images": "stored predictions", "data": {}, "fingerprint": None, "notes": [note]})
    rows = selection.table.rows(split)
    sample = rows if bundle.detector is not None and bundle.detector.needs_features else sampled(rows)
    images = rerun.images(selection.table, bundle.network)
    found = Predictor(bundle.network, rerun.machine).split(images, split, rerun.views, sample=sample)
    predictions = Predictions.from_logits(selection.table, found.rows, bundle.calibrate(found.logits))
    resampling = {"resamples": settings.bootstrap, "seed": seed}
    files = ImageFiles(paths, bundle.network.spec, rerun.augment, rerun.views)
    others = read_batches(files, batch_size=rerun.batch_size, workers=min(rerun.workers, len(paths)))
    features = None if found.features is None else found.features[np.isin(sample, sampled(rows))]
    more = {
        "robustness": robustness_of(bundle, selection.table, split, ways, rerun, **resampling),
        "ood": unlike_document(
            bundle, FeaturesAndLogits(found.features, found.logits), others, machine=rerun.machine,
            source=settings.ood_data, **resampling,
        ),
    }  # fmt: skip
    facts = {
        "images": "same" if selection.same else "other",
        "data": typed,
        "fingerprint": selection.table.fingerprint(),
        "notes": list(selection.notes),
        "device": str(rerun.machine.device),
        "precision": rerun.machine.precision,
        "views": rerun.views,
        "drift": _drift_of(run, selection, split, predictions, features),
    }
    return Scored(predictions, facts, (bundle.network, selection.table.store), more)


def changes_of(typed: Mapping[str, Any]) -> SourceChanges:
    """Return what was typed of a data source; a source without a target holds arguments of the run's own."""
    arguments = dict(typed)
    given, unreadable = dict(arguments.pop("source", {})), arguments.pop("unreadable", None)
    if "_target_" in given:
        return SourceChanges(arguments, read_target("data.source", given), unreadable)
    return SourceChanges({**arguments, **given}, None, unreadable)


def check_single(bundle: Bundle, paths: Sequence[str]) -> None:
    """Check that a run which is asked to tell single images apart reads single images.

    Raises:
        ConfigError: It reads sequences.
    """
    if paths and bundle.network.frames is not None:
        raise ConfigError("ood_data= names single images, and this run reads sequences of frames. Leave it out.")


def _drift_of(
    run: Run, selection: Selection, split: str, predictions: Predictions, features: np.ndarray | None
) -> _Document | None:
    """Return how far the images are from those of validation; None where these are asked for, or those of training."""
    if selection.same and split != "test":
        return None
    new = Sample(features, predictions.probabilities)
    return drift_of_run(run, new, predictions.labels, predictions.task, seed=stored_settings(run.config).seed)


def _new_folder(parent: Path) -> Path:
    """Make a folder named after the time; one that exists is never used again."""
    name = now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise ConfigError(f"{parent} holds 1,000 evaluations of this second. Wait a second.")


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
