"""finetune predict: what a stored run says of images that nobody has labelled."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from finetune.config.resolve import resolve
from finetune.config.settings.review_roots import PredictSettings
from finetune.errors import ConfigError, DataError, nearest
from finetune.evaluation.drift.drift_report import check_reference, drift_of_run
from finetune.evaluation.drift.sample_recorder import SampleRecorder
from finetune.evaluation.guarantees import check_guarantee_views, guarantees_of
from finetune.evaluation.image_files import Read, read_batches
from finetune.evaluation.inference import Predictor
from finetune.evaluation.ood import ood_line
from finetune.evaluation.prediction_table import YES, PredictionRow, TableFormat, open_table
from finetune.evaluation.predictions import to_probabilities
from finetune.evaluation.rerun_settings import own_views, pass_options, rerun_settings
from finetune.evaluation.sequence_files import files_of
from finetune.models.bundle import Bundle, load_bundle
from finetune.report.console.evaluation_console import show_drift
from finetune.runs.run import Run, write_json
from finetune.runtime.device import DevicePass
from finetune.uncertainty.ood.detector import FeaturesAndLogits, check_components

_UNREADABLE = ("error", "skip")


def predict(cfg: DictConfig) -> None:
    """Write a table of what a stored run says of each image of a file or folder, however many there are.

    Without output= the table is predictions.csv in the current folder, and an existing one is not touched. With
    unreadable=skip a file that cannot be read keeps its row, with the reason in the column `error`. With drift=true it
    is said, and written beside the table, how far the images are from those of validation. With coverage=… and
    target_accuracy=… it says of each image which labels it may have, and whether its answer needs a second look. Where
    the run can tell, it says which images are unlike those of training.

    Raises:
        ConfigError: The run, the input or a setting is not there, or the output exists.
        DataError: A file cannot be read, and unreadable is error.
    """
    settings = resolve(cfg, PredictSettings)
    console = Console()
    if settings.unreadable not in _UNREADABLE:
        hint = nearest(settings.unreadable, _UNREADABLE)
        raise ConfigError(f"unreadable={settings.unreadable} is not known. Use error or skip.{hint}")
    output = choose_output(settings.output)
    run = Run.find(settings.run, Path(settings.runs))
    check_reference(run, wanted=settings.drift)
    guarantees, guaranteed = guarantees_of(run, settings.coverage, settings.target_accuracy)
    rerun = rerun_settings(run, settings.device, **pass_options(settings))
    if guaranteed:
        check_guarantee_views(rerun.views, own_views(run, None)[0])
    bundle = load_bundle(run.model_dir)
    components = check_components(bundle.detector, settings.components)
    files = files_of(Path(settings.input).expanduser(), bundle.network, rerun.augment, rerun.views)
    size = files.together(rerun.batch_size)
    skip = settings.unreadable == "skip"
    table = TableFormat(
        bundle.labels, bundle.task, settings.top_k, bundle.threshold, skip, guarantees, bundle.detector, components
    )
    batches = read_batches(files, batch_size=size, workers=min(rerun.workers, len(files)))
    shown: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    watch = SampleRecorder(len(files)) if settings.drift else None
    rows = predict_rows(bundle, table, batches, rerun.device_pass, watch)
    unread = unlike = 0
    with open_table(output, table.columns) as writer:
        for part in track(rows, "Predicting", math.ceil(len(files) / size), **shown):
            writer.append(part)
            unread += sum(row.get("error") is not None for row in part)
            unlike += sum(row.get("unlike_training") == YES for row in part)
    remark = f" ({unread:,} of them could not be read: see the column error)" if unread else ""
    console.print(f"Wrote {len(files):,} rows{remark} to {output}", highlight=False, soft_wrap=True)
    for words in guaranteed:
        console.print(words, highlight=False, soft_wrap=True)
    if bundle.detector is not None:
        console.print(ood_line(bundle.detector, unlike, len(files) - unread), highlight=False, soft_wrap=True)
    if watch is not None and watch.passed:
        drift = drift_of_run(run, watch.sample, bundle.labels, bundle.task, seed=int(run.config["seed"]))
        write_json(output.with_suffix(".drift.json"), drift)
        show_drift(drift, console)


def predict_rows(
    bundle: Bundle,
    table: TableFormat,
    batches: Iterable[Read],
    device_pass: DevicePass,
    watch: SampleRecorder | None = None,
) -> Iterator[list[PredictionRow]]:
    """Yield the rows of one batch after the other, and let the images be watched.

    Raises:
        DataError: A file cannot be read, and the table has no column for it.
    """
    predictor = Predictor(bundle.network, device_pass)
    for paths, images, errors, frames in batches:
        bad = [(path, error) for path, error in zip(paths, errors, strict=True) if error is not None]
        if bad and not table.errors:
            raise DataError(f"{bad[0][0]} cannot be read: {bad[0][1]}. Remove it, or set unreadable=skip.")
        shapes = (0, bundle.network.num_features), (0, len(bundle.labels))
        seen = FeaturesAndLogits(*(np.zeros(shape, np.float32) for shape in shapes))
        if images is not None:
            seen = predictor.views(images, frames)
            if watch is not None and seen.features is not None:
                watch.add(seen.features, to_probabilities(bundle.calibrate(seen.logits), bundle.task))
        yield table.rows(paths, bundle.calibrate(seen.logits), errors, seen)


def choose_output(output: str | None) -> Path:
    """Return where the table goes.

    Raises:
        ConfigError: No name was given and the usual one is taken, or the name is a folder's.
    """
    path = Path(output).expanduser() if output is not None else Path("predictions.csv")
    if path.is_dir():
        raise ConfigError(f"output={path} is a folder. Name a file in it: output={path / 'predictions.csv'}")
    if output is None and path.exists():
        raise ConfigError(f"{path} exists in this folder. Name another with output=other.csv; a named one is replaced.")
    return path
