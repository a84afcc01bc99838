"""Every command that the README, the help and the headers of the configurations show is one that works."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser

from finetune.cli import with_config_name
from finetune.config.compose import check_read, conf_dir, register
from finetune.ensembles.crossval.crossval_plan import read_plan
from finetune.search.command_line import read_request
from finetune.search.multirun.grid import expand_grid, without_pool
from finetune.search.multirun.grid_run import pool_settings
from finetune.search.sweep_plan import make_sweep_plan

register()
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(conf_dir().rglob("*.yaml"))]
COMMAND = re.compile(r"^(?:# {3}| *)(finetune\b(?: .*?)?)(?: {2,}.*| +#.*)?$")
OWN_FOLDER = "my_configs"  # of the strategy that the README shows


def commands() -> list[str]:
    """Return the commands, each once."""
    found: dict[str, None] = {}
    for page in PAGES:
        for line in page.read_text().splitlines():
            match = COMMAND.match(line)
            if match and not re.search(r"--cfg|--h|^finetune:", match[1]):
                found[match[1].strip()] = None
    return list(found)


@pytest.mark.parametrize("command", commands())
def test_documented_command_composes(command: str, tmp_path: Path) -> None:
    arguments = with_config_name([word for word in shlex.split(command)[1:] if not word.startswith("$")])
    typed = get_args_parser().parse_args(arguments)
    assert typed.config_dir in (None, OWN_FOLDER)
    search = []
    if typed.config_dir:
        shown = re.findall(
            r"```yaml\n# my_configs/(\w+/\w+\.yaml).*?\n(.*?)```", (ROOT / "README.md").read_text(), re.S
        )
        assert len(shown) == 2
        for name, text in shown:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text(text)
        search = [f"hydra.searchpath=[file://{tmp_path}]"]
        arguments = [str(tmp_path) if word == OWN_FOLDER else word for word in arguments]
    if typed.config_name == "sweep":
        request = read_request(arguments)
        asked = request.words()
        if asked["resume"] is None and asked["join"] is None:
            make_sweep_plan(request)
        return
    if typed.config_name == "crossval":
        if "resume=last" not in arguments:
            read_plan([word for word in arguments if word != "recipe=auto"])  # which looks at the images
        return
    overrides, of_pool = without_pool(typed.overrides) if typed.multirun else (typed.overrides, [])
    pool_settings(None, of_pool)
    for job in expand_grid(overrides) if typed.multirun else [overrides]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            check_read(compose(typed.config_name or "train", [*search, *job]))


def test_commands_are_found_in_each_kind_of_page() -> None:
    found = commands()
    assert "finetune data=folder data.root=photos strategy=frozen" in found
    assert "finetune -m strategy=frozen,lp_ft seed=0,1,2" in found
    assert len(found) > 30
