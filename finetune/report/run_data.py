"""Run data: the files of a run's folder that a report is made of, read once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.table import ImageStore
from finetune.data.transforms import InputSpec
from finetune.errors import RunError
from finetune.evaluation.predictions import Predictions
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runs.stored_files import read_stored_json

SCORED = ("val", "test")


@dataclass(frozen=True)
class RunData:
    """A run as its folder holds it.

    Attributes:
        run: The folder.
        record: run.json.
        config: The resolved configuration.
        document: metrics.json; empty where the run did not get there.
        splits: Predictions by split, as far as they are stored.
        history: Rows of metrics.csv.
        baseline: Name and test predictions of another run that this one is held against; None for none.
        folder: Of the evaluation whose maps are told of; None for those of the run itself.
        store: Reads the images of that evaluation; None for the run's own.
    """

    run: Run
    record: dict[str, Any]
    config: dict[str, Any]
    document: dict[str, Any]
    splits: dict[str, Predictions]
    history: list[dict[str, Any]] = field(default_factory=list)
    baseline: tuple[str, Predictions] | None = None
    folder: Path | None = None
    store: ImageStore | None = None


def gather_run_data(run: Run, baseline: Run | None = None) -> RunData:
    """Read what there is of a run, and the test predictions of another.

    Raises:
        RunError: A file is damaged, or the other run has no test predictions.
    """
    splits = {split: Predictions.load(run.predictions_file(split)) for split in SCORED
              if run.predictions_file(split).is_file()}  # fmt: skip
    return RunData(
        run=run,
        record=run.record,
        config=run.config,
        document=run.metrics,
        splits=splits,
        history=RunHistory(run.history_file).read(),
        baseline=None if baseline is None else (baseline.path.name, test_of(baseline)),
    )


def read_spec(run: Run) -> InputSpec | None:
    """Return what the run's network expects of an image; None where the model is gone."""
    try:
        return InputSpec.stored(read_stored_json(run.model_dir / "model.json")["input"])
    except (RunError, ValueError, KeyError, TypeError):
        return None


def test_of(run: Run) -> Predictions:
    """Return what a run has predicted of its test images.

    Raises:
        RunError: It has predicted none.
    """
    file = run.predictions_file("test")
    if not file.is_file():
        raise RunError(f"baseline={run.path} has no test predictions. Name a finished run.")
    return Predictions.load(file)
