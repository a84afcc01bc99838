"""finetune report: the page of a run, made again from its files, with other thresholds or beside another run."""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from finetune.config.resolve import resolve
from finetune.config.settings.review_roots import ReportSettings
from finetune.errors import ConfigError
from finetune.evaluation.curves.operating_points import OperatingChoice
from finetune.report.run_page import write_report
from finetune.runs.run import Run


def report(cfg: DictConfig) -> None:
    """Write the page of a run.

    Raises:
        ConfigError: The run, or a setting, is not there.
        RunError: A file of the run is damaged.
    """
    settings = resolve(cfg, ReportSettings)
    choice = OperatingChoice(**asdict(settings.operating))
    run = Run.find(settings.run, Path(settings.runs))
    baseline = Run.find(settings.baseline, Path(settings.runs)) if settings.baseline is not None else None
    if baseline is not None and baseline.path == run.path:
        raise ConfigError(f"baseline={settings.baseline} is the run itself. Name another one.")
    output = Path(settings.output).expanduser() if settings.output is not None else None
    if output is not None and output.is_dir():
        raise ConfigError(f"output={output} is a folder. Name a file in it: output={output / 'report.html'}")
    file = write_report(run, output, choice=choice, baseline=baseline)
    Console().print(f"Report: {file}", highlight=False, soft_wrap=True, markup=False)
