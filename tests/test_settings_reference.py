"""The reference of settings and the help of commands, which are made from conf/."""

from pathlib import Path

import pytest

from finetune.config.command_help import command_help
from finetune.config.compose import command_names, register
from finetune.config.reference_page import reference_page
from finetune.config.settings_reference import compose_command, read_conf_file

register()
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"


def test_the_page_of_settings_is_that_of_conf() -> None:
    assert PAGE.read_text() == reference_page(), "docs/reference/configuration.md is stale: make reference"


@pytest.mark.parametrize(
    ("command", "own", "foreign"),
    [
        ("train", ["optimizer.lr=0.0005", "share of the phase's steps", "trainer.precision=32-true"], "sweep.trials"),
        ("sweep", ["sweep.trials=20", "in all, also after a resume"], "optimizer.lr=0.0005"),
        ("evaluate", ["data.root=null", "severities=[1,3,5]"], "optimizer.lr"),
        ("predict", ["input=???", "target_accuracy=null"], "optimizer.lr"),
    ],
)
def test_help_lists_the_settings_of_its_command_with_meaning_and_default(
    command: str, own: list[str], foreign: str
) -> None:
    text = command_help(command, compose_command(command))
    assert [words for words in own if words not in text] == []
    assert foreign not in text
    assert f"finetune {command}" in text and "Exit codes: 0 done" in text


def test_every_command_has_a_help_that_says_what_it_is_for() -> None:
    for command in command_names():
        lines = command_help(command, compose_command(command)).splitlines()
        assert len(lines[0]) > len(f"finetune {command}: ") and any(line.startswith("  finetune") for line in lines)


def test_comments_are_read_of_nested_keys_and_of_values_with_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "option.yaml"
    file.write_text(
        "# What it selects,\n# in two lines.\n#   finetune head=option    # an example\ndefaults: [other]\n"
        "color: '#fff'  # of it\nouter:  # both\n  inner: 1.0  # steps\nlast: [1, 2]\n"
    )
    found = read_conf_file(file)
    assert (found.about, found.commands) == ("What it selects, in two lines.", ("finetune head=option",))
    assert found.comments == {"color": "of it", "outer": "both", "outer.inner": "steps"}
    assert found.values == {"color": "'#fff'", "outer": "", "outer.inner": "1.0", "last": "[1, 2]"}
