"""Every command that the README, the docs, the help and the headers of the configurations show is one that works."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command import finetune
from documentation import COMMAND, GUIDES, README, ROOT, blocks, commands
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from scored import scored
from stored import stored_run

from finetune.cli import with_config_name
from finetune.config.compose import check_read, conf_dir, register
from finetune.ensembles.crossval.crossval_plan import OWN, make_crossval_plan
from finetune.runs.run import Run, write_atomic
from finetune.search.command_line import read_request
from finetune.search.multirun.grid import expand_grid, without_pool
from finetune.search.multirun.grid_run import pool_settings
from finetune.search.sweep_plan import make_sweep_plan

register()
OWN_FOLDER = "my_configs"  # of the strategy and the space that the docs show
SHOWS = re.compile(r"--cfg\b|--help\b")
# what needs no images and no training, only folders of runs
QUICK = re.compile(r"finetune (runs\b|features action|compare runs=|sweep .*export=|report run=last$)")


def in_configurations() -> list[str]:
    """Return the commands in the configurations: in their headers, and in what the help prints."""
    lines = [line for page in sorted(conf_dir().rglob("*.yaml")) for line in page.read_text().splitlines()]
    found = [match[1].strip() for line in lines if (match := COMMAND.match(line))]
    return [line for line in found if line.startswith("finetune") and not re.search(r"--h|^finetune:", line)]


def in_guides() -> list[str]:
    """Return the commands in the README and the docs."""
    return [line for page in GUIDES for line in commands(page, "finetune")]


def documented() -> list[str]:
    """Return the commands, each once."""
    return list(dict.fromkeys([*in_guides(), *in_configurations()]))


def shown_files() -> list[tuple[str, str]]:
    """Return the files of a folder of one's own that the docs show."""
    texts = [block.text for page in GUIDES for block in blocks(page) if block.language == "yaml"]
    matches = [re.match(rf"# {OWN_FOLDER}/(\w+/\w+\.yaml).*?\n(.*)", text, re.S) for text in texts]
    return [(match[1], match[2]) for match in matches if match]


def composed_commands() -> list[Any]:
    """Return the commands that run something; those that only files of conf/ show are many, and take long."""
    guides = in_guides()
    lines = [line for line in documented() if not SHOWS.search(line)]
    return [line if line in guides else pytest.param(line, marks=pytest.mark.slow) for line in lines]


@pytest.mark.parametrize("command", composed_commands())
def test_documented_command_composes(command: str, tmp_path: Path) -> None:
    arguments = with_config_name([word for word in shlex.split(command)[1:] if not word.startswith("$")])
    typed = get_args_parser().parse_args(arguments)
    assert typed.config_dir in (None, OWN_FOLDER)
    search = []
    if typed.config_dir:
        assert len(shown_files()) == 2
        for name, text in shown_files():
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text(text)
        search = [f"hydra.searchpath=[file://{tmp_path}]"]
        arguments = [str(tmp_path) if word == OWN_FOLDER else word for word in arguments]
    if typed.config_name == "sweep" and typed.overrides:
        request = read_request(arguments)
        asked = request.words()
        if asked["resume"] is None and asked["join"] is None:
            make_sweep_plan(request)
        return
    if typed.config_name == "crossval":
        if "resume=last" not in arguments:
            words = [word for word in arguments if word != "recipe=auto"]  # which looks at the images
            make_crossval_plan(read_request(words, OWN, "crossval"))
        return
    jobs = [typed.overrides]
    if typed.multirun:
        overrides, of_pool = without_pool(typed.overrides)
        pool_settings(None, of_pool)
        jobs = expand_grid(overrides)
    for job in jobs:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            check_read(compose(typed.config_name or "train", [*search, *job]))


@pytest.mark.parametrize("command", [line for line in documented() if SHOWS.search(line)])
def test_documented_command_shows_something(command: str, tmp_path: Path) -> None:
    shown = finetune(*shlex.split(command)[1:], folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) > 10


@pytest.mark.parametrize("command", sorted({line for line in in_guides() if QUICK.match(line)}))
def test_quick_command_runs(command: str, tmp_path: Path) -> None:
    predictions = {"val": scored(60, 3, seed=1), "test": scored(80, 3, seed=2)}
    for place in ("runs/old", "runs/new", "sweeps/mine"):
        fill(stored_run(tmp_path / place, predictions))
    done = finetune(*shlex.split(command)[1:], folder=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr


def fill(run: Run) -> None:
    """Add settings by which the docs filter."""
    write_atomic(run.config_file, f"{run.config_file.read_text()}\noptimizer: {{lr: 0.001}}\n")


def test_commands_are_found_in_each_kind_of_page() -> None:
    found = documented()
    for command in (
        "finetune predict run=last input=photos/new",  # a block of the README
        "finetune resume=last",  # its prose
        "finetune data=csv data.path=audit/audit.csv",  # a block of a page
        "finetune -m seed=0,1,2",  # a table
        "finetune augment=microscopy data=folder data.root=cells",  # the header of a configuration
        "finetune features action=show",  # the help
    ):
        assert command in found
    assert len(found) > 200


def test_error_that_the_docs_show_is_what_is_printed(tmp_path: Path) -> None:
    (shown,) = (block.text.splitlines() for page in GUIDES for block in blocks(page) if block.language == "console")
    command, line, code = shown[0].removeprefix("$ ").partition(";")[0], shown[1], shown[2]
    printed = finetune(*shlex.split(command)[1:], folder=tmp_path)
    assert re.fullmatch(re.escape(line).replace("…", ".*"), printed.stderr.strip())
    assert printed.returncode == int(code)
    assert f"`{line.removeprefix('finetune: ')}`" in README.read_text()


@pytest.mark.parametrize("command", sorted({line for page in GUIDES for line in commands(page, "python")}))
def test_documented_script_is_there_and_knows_its_flags(command: str) -> None:
    _, script, *words = shlex.split(command)
    text = (ROOT / script).read_text()
    assert script.startswith("tests/benchmarks/")
    assert all(f'"{word}"' in text for word in words if word.startswith("--"))


def test_documented_targets_and_extras_are_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [*GUIDES, ROOT / "CONTRIBUTING.md"]
    assert all(line.split()[1] in targets for page in pages for line in commands(page, "make") if " " in line)
    installed = {line for page in pages for line in commands(page, "pip")}
    assert "pip install ." in installed
    for line in installed - {"pip install ."}:
        assert re.fullmatch(r"pip install 'finetune-images\[(\w+)\]'", line)
        assert line.split("[")[1].split("]")[0] in extras
