"""The page of a run, from the files of its folder: which sections it has, in which order."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.data.table import ImageStore
from finetune.evaluation.curves.operating_points import OperatingChoice
from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Section
from finetune.report.html.render import render
from finetune.report.run_data import RunData, gather_run_data
from finetune.report.sections.audit_section import audit_section
from finetune.report.sections.calibration_section import calibration_section
from finetune.report.sections.classes_section import classes_section, errors_section
from finetune.report.sections.confusion_section import confusion_section
from finetune.report.sections.data_section import data_section, reproduce_section
from finetune.report.sections.ensemble_section import crossval_section, ensemble_section
from finetune.report.sections.evaluations_section import evaluations_section
from finetune.report.sections.examples_section import examples_section
from finetune.report.sections.fairness_section import fairness_section
from finetune.report.sections.learning_section import learning_section
from finetune.report.sections.ood_section import ood_section
from finetune.report.sections.ranking_section import gains_section, ranking_section
from finetune.report.sections.reliability_section import reliability_section
from finetune.report.sections.robustness_section import robustness_section
from finetune.report.sections.thresholds_section import threshold_section
from finetune.report.sections.verdict_section import verdict_section
from finetune.runs.run import Run, write_atomic
from finetune.runtime.log_files import record

log = logging.getLogger(__name__)

BEFORE: tuple[Callable[[RunData], Section | None], ...] = (
    verdict_section,
    crossval_section,
    ensemble_section,
    learning_section,
    classes_section,
    fairness_section,
    confusion_section,
    errors_section,
    examples_section,
    ranking_section,
    gains_section,
    reliability_section,
    calibration_section,
    robustness_section,
)
AFTER: tuple[Callable[[RunData], Section | None], ...] = (
    ood_section,
    audit_section,
    data_section,
    evaluations_section,
    reproduce_section,
)


def write_report(
    run: Run, output: Path | None = None, *, choice: OperatingChoice | None = None, baseline: Run | None = None
) -> Path:
    """Write the page of a run, and return where it is.

    Args:
        run: Finished or not; what there is is told.
        output: Where the page goes; None for the run's folder.
        choice: What a threshold is to achieve; None for the highest F1.
        baseline: Another run, tested on the same images, that this one is held against.

    Raises:
        ConfigError: The choice names a label that the run does not know.
        RunError: A file of the run cannot be read.
    """
    run_data = gather_run_data(run, baseline)
    return _write_page(output or run.report_file, f"Run {run.path.name}", run_data, choice or OperatingChoice())


def _write_page(file: Path, title: str, run_data: RunData, choice: OperatingChoice) -> Path:
    """Write all sections that there are into a file, and return where it is."""
    run = run_data.run
    model, strategy = (run_data.config.get(key, {}).get("name", "") for key in ("model", "strategy"))
    subtitle = f"{run.path.parent.name}: {model}, strategy {strategy}, {run.status}"
    write_atomic(file, render(title, list(run_sections(run_data, choice)), subtitle=subtitle))
    return file


def write_evaluation(
    run: Run,
    folder: Path,
    predictions: dict[str, Predictions],
    document: dict[str, Any],
    store: ImageStore | None = None,
) -> Path:
    """Write the page of an evaluation into its folder, and the run's anew, which lists it; return the first.

    Args:
        run: What was evaluated.
        folder: Of the evaluation.
        predictions: Of its split.
        document: Its scores.
        store: Reads its images, whose paths may mean others in the run's own source; None where that is the same.
    """
    run_data = replace(gather_run_data(run), splits=predictions, document=document, folder=folder, store=store)
    title = f"Evaluation {folder.name} of {run.path.name}"
    page = _write_page(folder / "report.html", title, run_data, OperatingChoice())
    write_report(run)
    return page


def attempt(make: Callable[[], object], what: str) -> None:
    """Make something that the run is whole without; the traceback of a failure goes to the log."""
    try:
        make()
    except Exception as error:  # noqa: BLE001 - hours of training are not lost to a picture of them
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("%s could not be made (%s: %s).", what, type(error).__name__, first)
        record.info("%s could not be made", what, exc_info=error)


def run_sections(run_data: RunData, choice: OperatingChoice) -> Iterator[Section]:
    """Yield what there is to tell, in order."""
    makers = (*BEFORE, lambda found: threshold_section(found, choice), *AFTER)
    for make in makers:
        section = make(run_data)
        if section is not None:
            yield section
