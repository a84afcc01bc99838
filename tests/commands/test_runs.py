"""The command runs: what is typed is answered on the screen and in a file, quickly and without torch."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import finetune
from configured import command_config
from hydra.core.override_parser.overrides_parser import OverridesParser

from finetune.cli import quoted_condition
from finetune.commands.runs import runs
from finetune.errors import ConfigError
from finetune.runs.run import Run, write_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(5):
        config = {"strategy": {"name": "lora" if number % 2 else "full"}, "optimizer": {"lr": 10.0**-number}}
        run = Run.create(tmp_path / "runs" / f"run{number}", config=config, command=["finetune"], seed=number)
        score = {"value": number / 10, "low": None, "high": None}
        write_json(run.metrics_file, {"test": {"accuracy": score, "f1_macro": {"value": 0.5, "low": 0.4, "high": 0.6}}})
        run.update(status="finished")
    return tmp_path


def test_rows_are_filtered_sorted_and_written(root: Path) -> None:
    asked = "test/accuracy>=0.1 and optimizer.lr<=1e-1,strategy!='it''s'"
    columns = "columns=[name,optimizer.lr,test/accuracy,test/f1_macro]"
    found = finetune(
        "runs", f"filter={asked}", "sort=-test/accuracy", "limit=3", columns, "output=a/b.csv", folder=root
    )
    assert found.returncode == 2 and "cannot be read" in found.stderr and not (root / "a").exists()
    asked = asked.replace("'it''s'", '"it\'s"')
    found = finetune(
        "runs", f"filter={asked}", "sort=-test/accuracy", "limit=3", columns, "output=a/b.csv", folder=root
    )
    assert found.returncode == 0, found.stderr
    assert [line.split()[0] for line in found.stdout.splitlines()[:4]] == ["name", "run4", "run3", "run2"]
    assert "3 of 5 runs" in found.stdout and "\x1b" not in found.stdout
    rows = list(csv.DictReader((root / "a" / "b.csv").read_text().splitlines()))
    assert [row["test/accuracy"] for row in rows] == ["0.4", "0.3", "0.2"]
    assert rows[0]["optimizer.lr"] == "0.0001" and (rows[0]["test/f1_macro_low"], rows[0]["test/f1_macro_high"]) == (
        "0.4",
        "0.6",
    )


def listed(root: Path, **changes: object) -> None:
    runs(command_config("runs", **{"runs": str(root / "runs"), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sort": "test/acuracy"}, "Did you mean 'test/accuracy'?"),
        ({"output": "o.xlsx"}, "output=o.xlsx has an unknown ending. Use one of .csv, .json, .html."),
        ({"output": "runs"}, "output=runs is a folder. Name a file in it: output=runs/runs.csv"),
        ({"runs": "nowhere"}, "Name the folder of your runs: runs=PATH."),
        ({"runs": 3}, "runs=3 is no folder."),
        ({"limit": 0}, "limit=0 must be a whole number of 1 or more"),
        ({"columns": []}, "columns=[] is no list of names"),
        ({"output": "runs/run0/config.yaml/o.csv"}, "output=runs/run0/config.yaml/o.csv cannot be written"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        listed(root, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before


def test_json_holds_the_same_rows(root: Path) -> None:
    listed(root, filter="strategy~LOR", columns=["name", "wandb"], sort="name", output=str(root / "o.json"))
    assert json.loads((root / "o.json").read_text()) == [
        {"name": "run1", "wandb": None}, {"name": "run3", "wandb": None}
    ]  # fmt: skip


def test_page_holds_the_same_rows_and_asks_nothing_of_a_network(root: Path) -> None:
    listed(root, filter="strategy~'<b>'", columns=["name"], output=str(root / "none.html"))
    listed(root, columns=["name", "test/accuracy", "when"], output=str(root / "o.html"))
    page, none = (root / "o.html").read_text(), (root / "none.html").read_text()
    assert page.count("<tr>") == 6 and all(f"run{number}" in page for number in range(5))
    assert 'data-value="0.4"' in page and "5 runs below" in page
    assert "0 runs below" in none and "&lt;b&gt;" in none and "<b>" not in none
    assert not re.search(r"(?:src|href)=.?https?:", page)


def test_a_list_without_rows_is_no_failure(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(root, filter="test/accuracy>0.9")
    assert "0 of 5 runs" in capsys.readouterr().out


def test_condition_reaches_the_command_as_it_was_typed() -> None:
    parser = OverridesParser.create()
    for typed in ("a>1,b<2", r"name~it\'s", "a='x y'", 'a="b"', "name~x\\", "strategy=lora and seed!=null"):
        assert parser.parse_override(quoted_condition(f"filter={typed}")).value() == typed
    for left in ("filter=null", "filter=", "filter='a=1'", "sort=-a"):
        assert quoted_condition(left) == left


def test_nothing_heavy_is_loaded(root: Path) -> None:
    script = (
        "import sys; sys.argv = ['finetune', 'runs', 'output=o.csv']\n"
        "from finetune.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end\n"
        "print(sorted({'torch', 'pandas', 'pyarrow', 'numpy', 'sklearn', 'matplotlib', 'wandb'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
