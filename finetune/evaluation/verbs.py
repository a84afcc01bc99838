"""The verbs evaluate and predict: what a stored run says of its own images, of others, and of unlabelled ones.

It is a composition root, the only code of evaluation that sees a config; both verbs run in one process and need nothing
but the run's folder and the images.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from torch import Tensor

from finetune.config import to_dict
from finetune.data.datamodule import ImageData
from finetune.errors import ConfigError, DataError, nearest
from finetune.evaluation.groups.document import groups_document
from finetune.evaluation.groups.partition import group_settings
from finetune.evaluation.images import (
    ImagesGoneError,
    Selection,
    Vocabulary,
    select_images,
)
from finetune.evaluation.inference import forward, predict_loader
from finetune.evaluation.intervals import metrics_document
from finetune.evaluation.machine import free_workers, own_precision, own_views, use_device
from finetune.evaluation.monitoring.drift import Sample, check_reference, drift_of_run
from finetune.evaluation.monitoring.reference import sampled
from finetune.evaluation.monitoring.timeline import timeline
from finetune.evaluation.monitoring.watch import Watch
from finetune.evaluation.predictions import Predictions, to_probabilities
from finetune.evaluation.promises import check_views, promise
from finetune.evaluation.screen import difference_table, show_drift, show_unlike, show_weakest, timeline_table
from finetune.evaluation.unlabelled import (
    YES,
    ImageFiles,
    Read,
    Row,
    TableFormat,
    find_images,
    open_table,
    read_batches,
)
from finetune.evaluation.unlike import told_unlike, unlike_document
from finetune.heads.inputs import inputs_of
from finetune.models.bundle import Bundle, load_bundle
from finetune.ood.detector import Seen, check_components
from finetune.report.build import attempt, write_evaluation
from finetune.runs import Run, write_json

Document = dict[str, Any]
UNREADABLE = ("error", "skip")


def evaluate(cfg: DictConfig) -> None:
    """Recompute predictions and metrics of a stored run, write them beside the old ones and print the difference.

    Without data overrides the images are the very ones of the run's split. With them (data.root=…, data.path=…, or a
    whole data.source) other images are scored. Where the run's own images are gone, the metrics are recomputed from
    the stored predictions, and said to be. With ood_data=… it says how well images of a folder are told from these.

    Raises:
        ConfigError: The run or a setting is not there.
        DataError: The run's images have changed, or other images do not fit the run's labels.
    """
    config = to_dict(cfg)
    console = Console()
    run = Run.find(config["run"], Path(config["runs"]))
    split = config["split"]
    predictions, facts = predict_labelled(run, config)
    unlike = facts.pop("unlike", None)
    seed = config["seed"] if config["seed"] is not None else run.config["seed"]
    document = metrics_document({split: predictions}, resamples=config["bootstrap"], seed=seed)
    settings = group_settings(config["groups"], list(map(str, predictions.groups.columns)))
    document["groups"] = groups_document({split: predictions}, settings, resamples=config["bootstrap"], seed=seed)
    if unlike:
        document["ood"] = unlike
    folder = new_folder(run.path / "evaluations")
    predictions.save(folder / "predictions" / f"{split}.parquet")
    write_json(folder / "metrics.json", document)
    write_json(folder / "evaluation.json", {"created": now().isoformat(), "split": split, "seed": seed, **facts})
    for note in facts["notes"]:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(difference_table(run.metrics.get(split, {}), document[split], split, predictions.num))
    show_weakest(document["groups"][split], console)
    show_drift(facts.get("drift"), console)
    show_unlike(unlike, console)
    if facts["images"] == "other":
        console.print(timeline_table(timeline(run), console.width))
    if config["report"]:
        attempt(lambda: write_evaluation(run, folder, split, predictions, document), "The report")
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


def predict_labelled(run: Run, config: Mapping[str, Any]) -> tuple[Predictions, Document]:
    """Predict the run's own images, or others if data was overridden; says which they were and how it was done."""
    split = config["split"]
    changes = {name: value for name, value in config["data"].items() if value is not None}
    paths = [] if config["ood_data"] is None else find_images(Path(config["ood_data"]).expanduser(), "ood_data")
    bundle = load_bundle(run.model_dir)
    device = use_device(config["device"])
    precision = own_precision(run, config["precision"], device)
    try:
        selection = select_images(run, changes, split, Vocabulary(bundle.labels, bundle.task))
    except ImagesGoneError as error:
        if changes or paths or not run.predictions_file(split).is_file():
            raise
        predictions = Predictions.load(run.predictions_file(split))
        note = f"{error} The metrics are recomputed from the stored predictions; the model was not run."
        return predictions, {"images": "stored predictions", "data": {}, "fingerprint": None, "notes": [note]}
    size = config["batch_size"] or run.config["data"]["eval_batch_size"]
    workers = config["workers"] if config["workers"] is not None else free_workers(device)
    views, augment = own_views(run, config["views"])
    images = ImageData(selection.table, bundle.network.spec, augment, eval_batch_size=size, workers=workers)
    run_over = partial(predict_loader, bundle.network, device=device, precision=precision)
    rows = selection.table.rows(split)
    sample = rows if bundle.detector is not None and bundle.detector.needs_features else sampled(rows)
    outputs = [run_over(images.view_loader(split, 0), sample=sample)]
    outputs += [run_over(images.view_loader(split, view)) for view in range(1, views)]
    logits = bundle.calibrate(np.stack([part.logits for part in outputs]))
    predictions = Predictions.from_logits(selection.table, outputs[0].rows, logits)
    own = Seen(outputs[0].features, np.stack([part.logits for part in outputs]))
    files = ImageFiles(paths, bundle.network.spec, augment, views)
    others = read_batches(files, batch_size=size, workers=min(workers, len(paths)))
    features = None if outputs[0].features is None else outputs[0].features[np.isin(sample, sampled(rows))]
    seed = config["seed"] if config["seed"] is not None else run.config["seed"]
    return predictions, {
        "images": "same" if selection.same else "other",
        "data": changes,
        "fingerprint": selection.table.fingerprint(),
        "notes": list(selection.notes),
        "device": str(device),
        "precision": precision,
        "views": views,
        "drift": drift_of(run, selection, split, predictions, features),
        "unlike": unlike_document(
            bundle,
            own,
            others,
            device=device,
            precision=precision,
            source=config["ood_data"],
            resamples=config["bootstrap"],
            seed=seed,
        ),
    }


def drift_of(
    run: Run, selection: Selection, split: str, predictions: Predictions, features: np.ndarray | None
) -> Document | None:
    """Return how far the images are from those of validation; None where these are asked for, or those of training."""
    if selection.same and split != "test":
        return None
    new = Sample(features, predictions.probabilities)
    return drift_of_run(run, new, predictions.labels, predictions.task, seed=run.config["seed"])


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
    config = to_dict(cfg)
    console = Console()
    check_settings(config)
    output = choose_output(config["output"])
    paths = find_images(Path(config["input"]).expanduser())
    run = Run.find(config["run"], Path(config["runs"]))
    check_reference(run, wanted=config["drift"])
    promises, promised = promise(run, config["coverage"], config["target_accuracy"])
    views, augment = own_views(run, config["views"])
    if promised:
        check_views(views, own_views(run, None)[0])
    bundle = load_bundle(run.model_dir)
    components = check_components(bundle.detector, config["components"])
    device = use_device(config["device"])
    size = config["batch_size"]
    workers = min(config["workers"] if config["workers"] is not None else free_workers(device), len(paths))
    skip = config["unreadable"] == "skip"
    table = TableFormat(
        bundle.labels, bundle.task, config["top_k"], bundle.threshold, skip, promises, bundle.detector, components
    )
    files = ImageFiles(paths, bundle.network.spec, augment, views)
    batches = read_batches(files, batch_size=size, workers=workers)
    shown: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    watch = Watch(len(paths)) if config["drift"] else None
    rows = predict_rows(bundle, table, batches, device, own_precision(run, config["precision"], device), watch)
    unread = unlike = 0
    with open_table(output, table.columns) as writer:
        for part in track(rows, "Predicting", math.ceil(len(paths) / size), **shown):
            writer.append(part)
            unread += sum(row.get("error") is not None for row in part)
            unlike += sum(row.get("unlike_training") == YES for row in part)
    remark = f" ({unread:,} of them could not be read: see the column error)" if unread else ""
    console.print(f"Wrote {len(paths):,} rows{remark} to {output}", highlight=False, soft_wrap=True)
    for words in promised:
        console.print(words, highlight=False, soft_wrap=True)
    if bundle.detector is not None:
        console.print(told_unlike(bundle.detector, unlike, len(paths) - unread), highlight=False, soft_wrap=True)
    if watch is not None and watch.passed:
        drift = drift_of_run(run, watch.sample, bundle.labels, bundle.task, seed=run.config["seed"])
        write_json(output.with_suffix(".drift.json"), drift)
        show_drift(drift, console)


def predict_rows(
    bundle: Bundle,
    table: TableFormat,
    batches: Iterable[Read],
    device: torch.device,
    precision: str,
    watch: Watch | None = None,
) -> Iterator[list[Row]]:
    """Yield the rows of one batch after the other, and let the images be watched.

    Raises:
        DataError: A file cannot be read, and the table has no column for it.
    """
    for paths, images, errors in batches:
        bad = [(path, error) for path, error in zip(paths, errors, strict=True) if error is not None]
        if bad and not table.errors:
            raise DataError(f"{bad[0][0]} cannot be read: {bad[0][1]}. Remove it, or set unreadable=skip.")
        logits = np.zeros((0, len(bundle.labels)), np.float32)
        features = np.zeros((0, bundle.network.num_features), np.float32)
        if images is not None:
            seen: list[Tensor] = []
            with inputs_of(bundle.network.head, seen):
                parts = [forward(bundle.network, view, device=device, precision=precision) for view in images.unbind(1)]
            logits = torch.stack(parts).cpu().numpy()
            features = seen[0].float().cpu().numpy()
            if watch is not None:
                watch.add(features, to_probabilities(bundle.calibrate(logits), bundle.task))
        yield table.rows(paths, bundle.calibrate(logits), errors, Seen(features, logits))


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse settings of predict that mean nothing.

    Raises:
        ConfigError: The policy is not known.
    """
    policy = config["unreadable"]
    if policy not in UNREADABLE:
        raise ConfigError(f"unreadable={policy} is not known. Use error or skip.{nearest(policy, UNREADABLE)}")


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


def new_folder(parent: Path) -> Path:
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
