"""The structure of the code: imports go one way, and files and functions stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "finetune"
# a package may import itself and what stands before it
ORDER = (
    "errors",
    "provenance",
    "memory",
    "threads",
    "runs",
    "history",
    "page",
    "schema",
    "schema_search",
    "schema_review",
    "config",
    "messages",
    "tracking",
    "cache",
    "data",
    "heads",
    "calibration",
    "ood",
    "models",
    "strategies",
    "training",
    "pretraining",
    "evaluation",
    "explain",
    "audit",
    "preview",
    "compare",
    "report",
    "listing",
    "benchmark",
    "recipes",
    "search",
    "ensembles",
    "cli",
)
# verbs put all parts together, and nothing but the command line imports them
VERBS = (
    "training/train.py",
    "training/features.py",
    "benchmark/verb.py",
    "evaluation/verbs.py",
    "evaluation/predict.py",
    "search/rank/verb.py",
    "search/sweep.py",
    "listing/verb.py",
    "audit/verb.py",
    "preview/verb.py",
    "compare/verb.py",
    "report/verb.py",
    "explain/verb.py",
    "ensembles/crossval/verb.py",
    "ensembles/joining/verb.py",
    "pretraining/verb.py",
)
# what may be imported without waiting for torch
LIGHT = (
    "errors.py",
    "provenance.py",
    "runs.py",
    "history.py",
    "schema.py",
    "schema_search.py",
    "config.py",
    "messages.py",
    "threads.py",
    "cli.py",
    "search/pools/jobs.py",
    "search/pools/launched.py",
    "search/pools/processes.py",
    "search/pools/slots.py",
    "search/pools/local.py",
    "search/pools/build.py",
    "search/multirun/driving.py",
    "search/multirun/progress.py",
    "search/multirun/grid.py",
    "search/spaces/space.py",
    "search/spaces/grammar.py",
    "search/spaces/checks.py",
    "search/request.py",
    "search/spaces/configs.py",
    "search/study/samplers.py",
    "search/study/storage.py",
    "search/study/study.py",
    "search/study/trials.py",
    "search/study/loop.py",
    "search/plan.py",
    "search/results/folder.py",
    "search/results/results.py",
    "search/results/page.py",
    "search/results/record.py",
    "search/results/export.py",
    "search/head_only/applies.py",
    "search/head_only/here.py",
    "schema_review.py",
    "listing/entries.py",
    "listing/conditions.py",
    "listing/choice.py",
    "listing/screen.py",
    "listing/output.py",
    "listing/verb.py",
    "evaluation/monitoring/timeline.py",
)
HEAVY = ("torch", "timm", "pytorch_lightning", "torchmetrics", "pandas", "numpy", "wandb", "rich", "sklearn")

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path.name not in ("__init__.py", "__main__.py")]


def imports(path: Path, *, top: bool = False) -> list[str]:
    """Return the modules that a file imports; only those of its top level if asked."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top else list(ast.walk(tree))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def place(module: str) -> str:
    """Return the part of the package that a module belongs to."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_follow_the_arrow(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    own = relative.split("/")[0].removesuffix(".py")
    assert own in ORDER, f"{relative} has no place in the order"
    used = [name for name in imports(path) if name.startswith("finetune.")]
    assert not [name for name in used if name.replace(".", "/").removeprefix("finetune/") + ".py" in VERBS]
    if relative not in VERBS:
        assert [name for name in used if ORDER.index(place(name)) > ORDER.index(own)] == []


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_imports_nothing_heavy(name: str) -> None:
    heavy = [module for module in imports(PACKAGE / name, top=True) if module.split(".")[0] in HEAVY]
    assert heavy == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if length(node) > 50] == []


def length(function: ast.FunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    first = function.body[0]
    described = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (function.end_lineno or 0) - ((first.end_lineno or 0) if described else function.lineno)
