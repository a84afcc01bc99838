"""A sweep goes on in its own folder, also where that was copied, and a record of a stranger writes nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import ConfigError
from finetune.search.command_line import request_of
from finetune.search.study.storage import open_storage, without_password
from finetune.search.sweep_opening import located

RECORD = {"storage": "journal.log", "study": "lr/today", "space": {}}


def test_a_copied_sweep_has_the_study_of_its_own_folder(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    for folder in (original, copy):
        folder.mkdir()
        (folder / "journal.log").touch()
    place = located(copy, {**RECORD, "storage": str(original / "journal.log")})
    assert (place.storage, place.folder, place.study) == (str(copy / "journal.log"), copy, "lr/today")


@pytest.mark.parametrize("storage", ["/etc/elsewhere.log", "../../outside.log", "~/x.log"])
def test_a_file_elsewhere_is_neither_read_nor_written(tmp_path: Path, storage: str) -> None:
    with pytest.raises(ConfigError, match=r"keeps its study outside its folder, in .* type: finetune sweep join="):
        located(tmp_path, {**RECORD, "storage": storage})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"storage": None}, {"study": 3}, {"space": []}, {"storage": ["a"]}])
def test_a_record_that_does_not_say_where_it_is_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.json does not say where its study is"):
        located(tmp_path, {**RECORD, **change})


@pytest.mark.parametrize(
    "request_kept",
    [None, [], "text", {}, {"own": "a", "fixed": [], "swept": [], "config_dir": None},
     {"own": [1], "fixed": [], "swept": [], "config_dir": None},
     {"own": [], "fixed": [], "swept": [], "config_dir": 5}],
)  # fmt: skip
def test_a_record_without_its_request_is_one_line(tmp_path: Path, request_kept: Any) -> None:
    with pytest.raises(ConfigError, match="does not say how it was begun"):
        request_of({"request": request_kept}, tmp_path / "sweep.json")


@pytest.mark.parametrize("line", ["hydra.searchpath=[file:///tmp/evil]", "hydra/launcher=x", "loss._target_=os.system"])
def test_a_stored_request_names_no_code(tmp_path: Path, line: str) -> None:
    kept = {"own": [], "fixed": [line], "swept": [], "config_dir": None}
    with pytest.raises(ConfigError):
        request_of({"request": kept}, tmp_path / "sweep.json")


def test_a_password_is_in_no_message() -> None:
    assert without_password("mysql://user:secret@host/db at x") == "mysql://user:***@host/db at x"
    with pytest.raises(ConfigError) as caught:
        open_storage("mysql://user:secret@nowhere.invalid/db")
    assert "secret" not in str(caught.value)
