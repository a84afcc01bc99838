"""finetune compare: which of several runs is better on the same images, and whether one may replace another."""

from pathlib import Path

from omegaconf import DictConfig

from finetune.config.resolve import resolve
from finetune.config.settings.review_roots import CompareRootSettings
from finetune.errors import ConfigError, RunError
from finetune.evaluation.compare.comparison import compare_runs, find_compared_run
from finetune.evaluation.compare.gate import check_gate, read_gate
from finetune.report.html.render import render
from finetune.report.pages.comparison_page import comparison_sections
from finetune.report.pages.comparison_summary import Verdicts, comparison_document, show_comparison
from finetune.runs.run import write_atomic, write_json
from finetune.runs.sweep_folder import best_folders


def compare(cfg: DictConfig) -> None:
    """Compare runs with the first of them, write compare.json and compare.html, and check the gate.

    Raises:
        ConfigError: A run or a setting is not there.
        DataError: The runs were not tested on the same images.
        RunError: A candidate does not pass the gate; everything has been written then.
    """
    settings = resolve(cfg, CompareRootSettings)
    options = settings.compare
    conditions = read_gate(options.gate, options.gate_rule) if options.gate is not None else ()
    runs_compared = [find_compared_run(name, Path(settings.folder), settings.split) for name in references(settings)]
    comparison = compare_runs(
        runs_compared, settings.split, common=settings.common, resamples=settings.bootstrap, seed=settings.seed
    )
    verdicts: Verdicts = [
        (pair.name, check_gate(condition, pair.changes.metrics, options.gate_rule))
        for pair in comparison.pairs
        for condition in conditions
    ]
    output = Path(settings.output).expanduser()
    write_json(output / "compare.json", comparison_document(comparison, verdicts))
    subtitle = f"{len(comparison.pairs) + 1} runs, {comparison.pairs[0].first.num:,} images of split {comparison.split}"
    page = render("Comparison of runs", comparison_sections(comparison, verdicts), subtitle=subtitle)
    write_atomic(output / "compare.html", page)
    show_comparison(comparison, verdicts, output)
    failed = [f"{name}: {each.reason}" for name, each in verdicts if not each.passed]
    if failed:
        raise RunError(f"compare.gate={options.gate} is not passed. {' '.join(failed)}.")


def references(settings: CompareRootSettings) -> list[str]:
    """Return what was named: runs, or the best trials of a sweep; the baseline comes first.

    Raises:
        ConfigError: Neither or both were named.
    """
    named = settings.runs
    if (named is None) == (settings.compare.sweep is None):
        raise ConfigError(
            "Name what is compared: runs=[A,B,…], or compare.sweep=FOLDER for the best trials of a sweep."
        )
    sweep = settings.compare.sweep
    found = best_folders(str(sweep), "compare.sweep", settings.top) if named is None else [str(each) for each in named]
    if settings.baseline is not None:
        base = str(settings.baseline)
        found = [base, *(each for each in found if each != base)]
    return found
