"""Settings: typed, without defaults in code, explained in conf/, in their ranges, and the only thing below commands."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from configured import settings_for
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.compose import conf_dir
from finetune.config.settings import (
    data_groups,
    review_groups,
    review_roots,
    roots,
    run_groups,
    search_groups,
    training_groups,
)
from finetune.config.settings.checked import Checked, Range, hints, without_none
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings_reference import read_conf_file
from finetune.errors import ConfigError

PACKAGE = Path(inspect.getfile(Checked)).parents[2]
CLASSES = sorted(
    {
        value
        for module in (data_groups, training_groups, run_groups, search_groups, review_groups, roots, review_roots)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Checked) and value is not Checked
    },
    key=lambda cls: cls.__name__,
)
# what is called by such a name and is no configuration: arguments of a library, or what a file of a run holds
NOT_CONFIGURATION = {
    ("models/input_spec.py", "config"),  # of a network of timm's
    ("models/network.py", "options"), ("models/weights.py", "options"),  # of a network of timm's
    ("report/runs_table/entries.py", "config"),  # the stored document, which a table shows as it is
    ("runs/run.py", "config"), ("runs/wandb.py", "config"),  # the document that is stored and shown
    ("search/study/samplers.py", "options"),  # of a sampler or a pruner of Optuna's, by name
    ("training/optimizers.py", "options"),  # of an optimizer of timm's
}  # fmt: skip
# keys that say which command or group it is, or that a command sets for its jobs
EXPLAINED_ELSEWHERE = ("verb", "data.splits", "data.splits.fold.", "logger.others", "logger.wandb")


def parameters() -> Iterator[tuple[str, str, str, str]]:
    """Yield file, function, parameter and annotation of all parameters below the commands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("commands/", "config/", "cli.py")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for argument in [*node.args.args, *node.args.kwonlyargs]:
                    if argument.annotation is not None:
                        yield name, node.name, argument.arg, ast.unparse(argument.annotation).strip("'")


def test_nothing_below_the_commands_takes_a_raw_configuration() -> None:
    raw = ("DictConfig", "dict[str, Any]", "Mapping[str, Any]", "_Config")
    names = ("config", "cfg", "settings", "options", "trainer", "data", "cache", "augment", "head", "logger", "sweep")
    found = [
        each
        for each in parameters()
        if each[3].split(" |")[0] in raw and (each[2] in names or each[3].split(" |")[0] in ("DictConfig", "_Config"))
        if (each[0], each[2]) not in NOT_CONFIGURATION
    ]
    assert not found


def test_no_field_has_a_default() -> None:
    for cls in CLASSES:
        for entry in fields(cls):
            assert entry.default is MISSING and entry.default_factory is MISSING, (cls, entry.name)


def comments() -> set[str]:
    """Return the keys that a comment of conf/ explains where a value of theirs stands."""
    found = set()
    for path in conf_dir().rglob("*.yaml"):
        parts = path.relative_to(conf_dir()).parts
        prefix = f"{parts[0]}." if len(parts) > 1 else ""
        found |= {f"{prefix}{key}" for key in read_conf_file(path).comments}
    return found


@pytest.mark.parametrize("cls", CLASSES)
def test_each_setting_is_explained_in_conf(cls: type[Checked]) -> None:
    said = comments()
    for entry in fields(cls):
        kind, key = without_none(hints(cls)[entry.name]), f"{cls.place}{entry.name}"
        whole = (conf_dir() / entry.name).is_dir() or (isinstance(kind, type) and issubclass(kind, Checked))
        if entry.metadata.get("derived") or key.startswith(EXPLAINED_ELSEWHERE) or (not cls.place and whole):
            continue
        assert key in said, f"{key} needs a comment in conf/: meaning, unit, and what null means"


RANGES = [
    (cls, entry.name, entry.metadata["range"])
    for cls in CLASSES
    if cls.place or cls in ROOTS.values()
    for entry in fields(cls)
    if "range" in entry.metadata and cls.__name__ not in ("NumberedFold", "PoolSettings") and cls.place != "pool."
]


@pytest.mark.parametrize(("cls", "name", "limits"), RANGES)
@given(data=st.data())
def test_what_is_out_of_range_is_refused_by_its_key(
    cls: type[Checked], name: str, limits: Range, data: st.DataObject
) -> None:
    kind = without_none(hints(cls)[name])
    whole = kind is int or int in get_args(kind)
    below, above = limits.least if limits.above is None else limits.above, limits.most or limits.below
    wrong: list[st.SearchStrategy[Any]] = []
    if below is not None:
        most = int(below) - (limits.above is None)
        wrong.append(
            st.integers(max_value=most) if whole else st.floats(max_value=below, exclude_max=limits.above is None)
        )
    if above is not None and not whole:
        wrong.append(st.floats(min_value=above, exclude_min=limits.below is None))
    value = data.draw(st.one_of(wrong + ([] if whole else [st.just(float("nan"))])))
    with pytest.raises(ConfigError, match=rf"^{cls.place}{name}=.* must be ") as caught:
        settings_for(cls, **{name: (value,) if get_origin(kind) is tuple else value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["schedule.warmup=2"], ["data.workers=-1"], ["audit", "audit.hash_distance=65"]])
def test_a_range_is_checked_before_anything_heavy_is_imported(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[0] = 'finetune'\n"
        "from finetune.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    key = words[-1].partition("=")[0]
    assert found.returncode == 2 and found.stderr.startswith(f"finetune: {key}="), found.stderr
    assert found.stderr.count("\n") == 1
