"""finetune evaluate: what a stored run says of its own images, or of others."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from finetune.config.resolve import resolve, stored_settings
from finetune.config.settings.review_roots import EvaluateSettings
from finetune.errors import ConfigError
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.drift.timeline import timeline
from finetune.evaluation.explain.explain_run import explain_run
from finetune.evaluation.fairness.group_metrics import groups_document, weakest_line
from finetune.evaluation.fairness.partition import check_group_columns
from finetune.evaluation.labelled_images import predict_labelled
from finetune.evaluation.robustness.corruptions import check_corruptions
from finetune.report.console.evaluation_console import difference_table, show_drift, show_ood, timeline_table
from finetune.report.console.robustness_console import show_robustness
from finetune.report.run_page import attempt, write_evaluation
from finetune.runs.run import Run, write_json


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
    weakest = weakest_line(document["groups"][split])
    if weakest:
        console.print(f"weakest {weakest}", highlight=False, soft_wrap=True)
    show_drift(facts.get("drift"), console)
    show_robustness(more.get("robustness"), console)
    show_ood(more.get("ood"), console)
    if facts["images"] == "other":
        console.print(timeline_table(timeline(run), console.width))
    if settings.report:
        if seen is not None:
            explain = partial(explain_run, folder, *seen, predictions, own.explain, own.seed)
            attempt(explain, "Maps of what the network looks at")
        store = seen[1] if seen is not None else None
        attempt(lambda: write_evaluation(run, folder, {split: predictions}, document, store), "The report")
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


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
