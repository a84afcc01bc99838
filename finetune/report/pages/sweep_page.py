"""The page of a sweep: its plots and its trials in one file that opens without a network."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from finetune.report.html.blocks import Block, Cell, Code, Column, Figure, Section, Table, Text
from finetune.report.html.render import render
from finetune.runs.run import write_atomic
from finetune.runs.sweep_folder import SweepFolder
from finetune.search.results.summary import BestTrial, TrialRow
from finetune.search.study.samplers import SearchObjective
from finetune.search.study.study import Search

_ROWS = 500
SHOWN_BEST = 10
HIDDEN = ("folder", "attempts", "last_report")
DIGITS = 4
_Draw = Callable[[], Any]


def write_sweep_page(search: Search, folder: SweepFolder, table: Sequence[TrialRow], best: Sequence[BestTrial]) -> str:
    """Write the page, and return where it is."""
    ended = f"{len(table)} trials, {sum(row['state'] == 'complete' for row in table)} of them complete"
    sections = [
        Section("best", "Best", tuple(best_blocks(best)), ended),
        Section("plots", "Plots", tuple(figure(title, drawn) for title, drawn in drawings(search))),
        Section("trials", "Trials", trial_blocks(table, {each.number for each in best}, search)),
    ]
    write_atomic(folder.page_file, render(f"Sweep {folder.name}", sections))
    return f"Plots: {folder.page_file}"


def best_blocks(best: Sequence[BestTrial]) -> Iterator[Block]:
    """Yield the best trials and the commands that repeat them."""
    if not best:
        yield Text("No trial is complete and within the budget.", "warning")
    for each in best[:SHOWN_BEST]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.values.items())
        yield Code(each.command, f"Trial {each.number}: {values}")
    if len(best) > SHOWN_BEST:
        yield Text(f"{len(best) - SHOWN_BEST} more on the Pareto front are marked in the table.")


def drawings(search: Search) -> Iterator[tuple[str, _Draw]]:
    """Yield the title of each plot and what draws it."""
    from optuna.visualization import matplotlib as plots

    objectives = search.settings.objectives
    if len(objectives) in (2, 3):
        yield "Pareto front", lambda: plots.plot_pareto_front(search.study, target_names=[o.name for o in objectives])
    for number, objective in enumerate(objectives):
        words = target_of(objective, number, several=len(objectives) > 1)
        for title, plot in (
            ("History", plots.plot_optimization_history),
            ("Importance of each setting", plots.plot_param_importances),
            ("Parallel coordinates", plots.plot_parallel_coordinate),
            ("Slices", plots.plot_slice),
        ):
            yield f"{title}: {objective.name}", partial(plot, search.study, **words)
    if len(objectives) == 1 and any(trial.intermediate_values for trial in search.trials()):
        yield "Reports of each epoch", lambda: plots.plot_intermediate_values(search.study)


def target_of(objective: SearchObjective, number: int, *, several: bool) -> dict[str, Any]:
    """Return the arguments by which a plot takes one of several objectives."""
    if not several:
        return {"target_name": objective.name}
    return {"target": lambda trial: trial.values[number], "target_name": objective.name}


def figure(title: str, draw: _Draw) -> Block:
    """Return a plot as SVG, or a line that says why it cannot be drawn, such as too few trials."""
    import matplotlib

    matplotlib.use("Agg")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib import pyplot

    buffer = io.StringIO()
    try:
        with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": title}):
            warnings.simplefilter("ignore")
            drawn = draw()
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            axes.figure.savefig(buffer, format="svg", bbox_inches="tight")
    except Exception as error:  # noqa: BLE001 - a plot that Optuna cannot draw is no reason to lose the others
        return Text(f"{title} is not drawn: {error}")
    finally:
        pyplot.close("all")
    return Figure(title, element(buffer.getvalue()), f"{title}, drawn by Optuna; its numbers are in the table below.")


def element(svg: str) -> str:
    """Return an SVG file as an element that shrinks with the page."""
    inner = svg[svg.index("<svg") :]
    return re.sub(r'(<svg [^>]*?)\s(?:width|height)="[^"]*"([^>]*?)\s(?:width|height)="[^"]*"', r"\1\2", inner, count=1)


def trial_blocks(table: Sequence[TrialRow], best: set[int], search: Search) -> tuple[Block, ...]:
    """Return the trials as a table, the best first; of very many, the first of them."""
    names = [name for name in dict.fromkeys(key for row in table for key in row) if name not in HIDDEN]
    ordered = sorted(table, key=lambda row: (row["trial"] not in best, row["trial"]))
    rows = tuple(
        ("yes" if row["trial"] in best else "", *(cell(row.get(name)) for name in names)) for row in ordered[:_ROWS]
    )
    scores = {each.name for each in search.settings.objectives if each.name.startswith("val/")}
    columns = (Column("best"), *(Column(name, DIGITS if name in scores else None) for name in names))
    caption = f"{len(table) - _ROWS} more are in sweep.csv." if len(table) > _ROWS else ""
    return (Table("Trials", columns, rows, caption, key=False),)


def cell(value: Any) -> Cell:
    """Return a value as it is shown; a setting that is typed as a number is one."""
    if isinstance(value, bool):
        return str(value).lower()
    for kind in (int, float):
        try:
            return kind(f"{float(value):.4g}" if kind is float else str(value))
        except (TypeError, ValueError):
            continue
    return None if value is None else str(value)
