"""Known files: an unchanged file need not be read again, a changed one must be."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from finetune.data.cache.file_digests import KnownFiles, file_state

OLD = time.time() - 100


def old_file(path: Path, content: str = "pixels") -> str:
    path.write_text(content)
    os.utime(path, (OLD, OLD))
    return str(path)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of this very second count as settled: their time of change cannot be set."""
    monkeypatch.setattr("finetune.data.cache.file_digests.RACY_NS", -(10**10))


def note(known: KnownFiles, path: str, digest: str = "abc") -> None:
    known.note({path: digest}, {path: file_state(path)})


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_known(tmp_path: Path) -> None:
    known, path = KnownFiles(tmp_path / "files.sqlite"), old_file(tmp_path / "a.png")
    note(known, path)
    assert known.digests([path, str(tmp_path / "other.png")]) == {path: "abc"}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", ["other pixels", "slexip"])
def test_a_changed_file_is_not_known_whatever_its_size_and_time_say(tmp_path: Path, content: str) -> None:
    known, path = KnownFiles(tmp_path / "files.sqlite"), old_file(tmp_path / "a.png")
    note(known, path)
    time.sleep(0.02)  # the resolution of a file's times
    old_file(tmp_path / "a.png", content)
    assert known.digests([path]) == {}


def test_a_file_that_may_still_change_unnoticed_is_not_noted(tmp_path: Path) -> None:
    known, path = KnownFiles(tmp_path / "files.sqlite"), str(tmp_path / "a.png")
    Path(path).write_text("pixels")
    note(known, path)
    assert known.digests([path]) == {}


@pytest.mark.usefixtures("settled")
def test_a_changed_row_is_not_believed(tmp_path: Path) -> None:
    known, path = KnownFiles(tmp_path / "files.sqlite"), old_file(tmp_path / "a.png")
    note(known, path)
    with sqlite3.connect(known.path) as database:
        database.execute("UPDATE images SET digest = 'def'")
    assert known.digests([path]) == {}


@pytest.mark.usefixtures("settled")
def test_a_damaged_database_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known, path = KnownFiles(tmp_path / "files.sqlite"), old_file(tmp_path / "a.png")
    known.path.write_bytes(b"not a database" * 100)
    assert known.digests([path]) == {} and "damaged" in caplog.text
    note(known, path)
    assert known.digests([path]) == {path: "abc"}


@pytest.mark.usefixtures("settled")
def test_more_files_than_one_query_takes(tmp_path: Path) -> None:
    known = KnownFiles(tmp_path / "files.sqlite")
    paths = [old_file(tmp_path / f"{number}.png") for number in range(1201)]
    known.note(dict(zip(paths, paths, strict=True)), {path: file_state(path) for path in paths})
    assert known.digests(paths) == dict(zip(paths, paths, strict=True))
