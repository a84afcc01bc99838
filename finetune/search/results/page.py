"""The page of a sweep: its plots and its trials in one file that opens without a network.

It decides which plots there are and draws them as SVG, which keeps the page small; the plots themselves are Optuna's.
"""

import html
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from finetune.runs import write_atomic
from finetune.search.results.folder import SweepFolder
from finetune.search.results.results import Best, Row
from finetune.search.study.samplers import Objective
from finetune.search.study.study import Search

ROWS = 500
HIDDEN = ("folder", "attempts", "last_report")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 2px 10px; text-align: left; }
tr:nth-child(even) { background: #f4f4f4; } tr.best { font-weight: bold; } svg { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .7em; overflow-x: auto; } .wide { overflow-x: auto; } .note { color: #777; }
"""
Draw = Callable[[], Any]


def write_page(search: Search, folder: SweepFolder, table: Sequence[Row], best: Sequence[Best]) -> str:
    """Write the page, and return where it is."""
    parts = [f"<h1>{html.escape(folder.name)}</h1>", *best_parts(best)]
    for title, drawn in drawings(search):
        parts += [f"<h2>{html.escape(title)}</h2>", figure(drawn)]
    parts += ["<h2>Trials</h2>", trial_table(table, {each.number for each in best})]
    head = f'<meta charset="utf-8"><title>{html.escape(folder.name)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    write_atomic(
        folder.page_file, f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    )
    return f"Plots: {folder.page_file}"


def best_parts(best: Sequence[Best]) -> Iterator[str]:
    """Yield the best trials and the commands that repeat them."""
    for each in best[:10]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.values.items())
        yield f"<p>Trial {each.number}: {html.escape(values)}</p><pre>{html.escape(each.command)}</pre>"


def drawings(search: Search) -> Iterator[tuple[str, Draw]]:
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
            yield f"{title}: {objective.name}", drawing(plot, search, words)
    if len(objectives) == 1 and any(trial.intermediate_values for trial in search.trials()):
        yield "Reports of each epoch", lambda: plots.plot_intermediate_values(search.study)


def target_of(objective: Objective, number: int, *, several: bool) -> dict[str, Any]:
    """Return the arguments by which a plot takes one of several objectives."""
    if not several:
        return {"target_name": objective.name}
    return {"target": lambda trial: trial.values[number], "target_name": objective.name}


def drawing(plot: Callable[..., Any], search: Search, words: Mapping[str, Any]) -> Draw:
    """Return a plot that is drawn when it is called."""
    return lambda: plot(search.study, **words)


def figure(draw: Draw) -> str:
    """Return a plot as SVG, or a line that says why it cannot be drawn, such as too few trials."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = draw()
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            buffer = io.StringIO()
            axes.figure.savefig(buffer, format="svg", bbox_inches="tight")
    except Exception as error:  # noqa: BLE001 - a plot that Optuna cannot draw is no reason to lose the others
        return f'<p class="note">Not drawn: {html.escape(str(error))}</p>'
    finally:
        pyplot.close("all")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def trial_table(table: Sequence[Row], best: set[int]) -> str:
    """Return the trials as a table; of very many, the first."""
    columns = [name for name in dict.fromkeys(key for row in table for key in row) if name not in HIDDEN]
    lines = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in columns)}</tr>"]
    for row in table[:ROWS]:
        mark = ' class="best"' if row["trial"] in best else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell(row.get(name))}</td>' for name in columns)}</tr>")
    more = f'<p class="note">{len(table) - ROWS} more are in sweep.csv.</p>' if len(table) > ROWS else ""
    return f'<div class="wide"><table>{"".join(lines)}</table></div>{more}'


def cell(value: Any) -> str:
    """Return a value as it is shown."""
    return "" if value is None else html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
