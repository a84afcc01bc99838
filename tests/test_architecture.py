"""The structure of the code: imports run one way, names stand once, and files and functions stay short."""

import ast
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "finetune"
# a package may import itself and what stands before it
ORDER = (
    "errors",
    "runtime",
    "config",
    "runs",
    "data",
    "uncertainty",
    "models",
    "evaluation",
    "features",
    "training",
    "audit",
    "search",
    "ensembles",
    "report",
    "commands",
    "cli",
)
# names that a module may share with others: of what each of several packages has
SHARED_NAMES = {
    "__init__",
    "settings",  # the settings of a package
    "fit",  # of a network, of a head
    "in_process",  # folds, trials
    "ood",  # of a run, of an evaluation
}
# what may be imported without waiting for torch
# what these packages nevertheless keep for when a command runs
HEAVY_MODULES = (
    "runs/wandb.py",
    "runs/wandb_connection.py",
    "runs/wandb_logger.py",
    "search/multirun/live_table.py",
    "search/study/trial_reports.py",
)
LIGHT_PACKAGES = ("errors", "config", "runs", "search/pools", "search/multirun", "search/spaces", "search/study")
LIGHT = (
    "cli.py",
    "runtime/device.py",
    "runtime/provenance.py",
    "runtime/threads.py",
    "commands/runs.py",
    "commands/sweep.py",
    "evaluation/drift/timeline.py",
    "report/pages/sweep_page.py",
    "report/runs_table/entries.py",
    "report/runs_table/row_selection.py",
    "report/console/runs_console.py",
    "report/runs_table/table_output.py",
    "search/command_line.py",
    "search/head_only/eligibility.py",
    "search/head_only/in_process.py",
    "search/results/summary.py",
    "search/results/wandb_export.py",
    "search/results/wandb_record.py",
    "search/sweep_opening.py",
    "search/sweep_plan.py",
    "search/sweep_trials.py",
)
HEAVY = ("torch", "timm", "pytorch_lightning", "torchmetrics", "pandas", "numpy", "wandb", "rich", "sklearn")

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path.name not in ("__init__.py", "__main__.py")]


def relative(path: Path) -> str:
    """Return a file's path below the package."""
    return path.relative_to(PACKAGE).as_posix()


def package_of(path: Path) -> str:
    """Return the package, or the module beside them, that a file belongs to."""
    return relative(path).split("/")[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def imports(path: Path, *, top: bool = False) -> list[str]:
    """Return the modules that a file imports; only those of its top level if asked."""
    nodes = parsed(path).body if top else list(ast.walk(parsed(path)))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "finetune":
            found += [f"finetune.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def imported_packages(path: Path) -> set[str]:
    """Return the other packages that a file imports."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("finetune.")}
    return found - {package_of(path)}


def light_modules() -> list[Path]:
    """Return the modules that are imported before a command runs."""
    light = [path for path in MODULES if relative(path) in LIGHT or relative(path).startswith(LIGHT_PACKAGES)]
    return [path for path in light if relative(path) not in HEAVY_MODULES]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_follow_the_arrow(path: Path) -> None:
    assert package_of(path) in ORDER, f"{relative(path)} has no place in the order"
    above = ORDER[ORDER.index(package_of(path)) + 1 :]
    assert sorted(imported_packages(path).intersection(above)) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        graph[package_of(path)] |= imported_packages(path)
    while free := [package for package, used in graph.items() if not used]:
        for package in free:
            del graph[package]
            for used in graph.values():
                used.discard(package)
    assert dict(graph) == {}


def test_only_the_command_line_imports_commands() -> None:
    importers = {package_of(path) for path in MODULES if "commands" in imported_packages(path)}
    assert importers <= {"cli"}


@pytest.mark.parametrize("path", light_modules(), ids=relative)
def test_the_command_line_imports_nothing_heavy(path: Path) -> None:
    assert [module for module in imports(path, top=True) if module.split(".")[0] in HEAVY] == []


def test_the_base_name_of_a_module_stands_once() -> None:
    names = Counter(path.stem for path in FILES)
    assert {name for name, times in names.items() if times > 1} <= SHARED_NAMES


def test_a_public_name_is_defined_in_one_module() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for name in public_names(parsed(path)):
            places[name].append(relative(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def public_names(tree: ast.Module) -> set[str]:
    """Return the names that a module defines at its top, but for private ones and its logger."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_") and name != "log"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    assert path.read_text().count("\n") <= 300
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if length(node) > 50] == []


def length(function: ast.FunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    first = function.body[0]
    described = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (function.end_lineno or 0) - ((first.end_lineno or 0) if described else function.lineno)
