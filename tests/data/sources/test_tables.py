"""A table of labels becomes the table of images that its rows mean, or an error that says what to type."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.sources import csv
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable, as_multilabel
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError

Write = Callable[..., Path]


@pytest.fixture
def write(make_images: Callable[..., Path]) -> Write:
    """Write six images and a table with the given text beside them."""

    def write_table(text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
        root = make_images(f"{number}.png" for number in range(6))
        (root / name).write_text(text, encoding=encoding)
        return root / name

    return write_table


def rows_of(table: ImageTable, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table.frame[name].tolist() for name in columns), strict=True))


def test_rows_become_images_with_their_labels(write: Write) -> None:
    file = write("path,label\n0.png,b\n1.png,a\n2.png,b\n")
    table = csv(str(file))
    assert table.labels == ("a", "b")
    assert rows_of(table, "id", "label", "split") == [
        ("0.png", "b", None), ("1.png", "a", None), ("2.png", "b", None),
    ]  # fmt: skip
    assert [Path(path) for path in table.frame["path"]] == [file.parent / f"{number}.png" for number in range(3)]
    assert len(verify_images(table, "error")) == 3


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        ("path,label\n0.png,a\n1.png,b\n", "labels.csv", "utf-8-sig"),
        ("path\tlabel\n0.png\ta\n1.png\tb\n", "labels.tsv", "utf-8"),
        ("path\tlabel\n0.png\ta\n1.png\tb\n", "labels.txt", "utf-8"),
        ("path;label\n0.png;a\n1.png;b\n", "labels.csv", "utf-8"),
        ("path, label\n0.png, a\n 1.png ,b \n", "labels.csv", "utf-8"),
        ("path,label\r\n0.png,a\r\n1.png,b\r\n", "labels.csv", "utf-8"),
        ('"path","label"\n"0.png","a"\n"1.png","b"', "labels.csv", "utf-8"),
        ("path,label,\n0.png,a,\n1.png,b,\n\n", "labels.csv", "utf-8"),
        (",path,label\n0,0.png,a\n1,1.png,b\n", "labels.csv", "utf-8"),
        ("path,label,note\n0.png,a\n1.png,b\n", "labels.csv", "utf-8"),
    ],
)
def test_ways_to_write_a_table_mean_the_same(text: str, name: str, encoding: str, write: Write) -> None:
    table = csv(str(write(text, name, encoding)))
    assert rows_of(table, "id", "label") == [("0.png", "a"), ("1.png", "b")]


def test_labels_are_text_whatever_they_look_like(write: Write) -> None:
    table = csv(str(write("path,label\n0.png,007\n1.png,7\n2.png,NA\n3.png,1.0\n4.png,None\n5.png,True\n")))
    assert table.labels == ("1.0", "007", "7", "NA", "None", "True")  # by their numbers


def test_integer_labels_of_parquet_are_integers(write: Write) -> None:
    root = write("").parent
    pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "label": [10, 2, 2]}).to_parquet(root / "labels.parquet")
    assert csv(str(root / "labels.parquet")).labels == ("2", "10")
    labels = pd.array([10, None, 2], dtype="Int64")
    pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "label": labels}).to_parquet(root / "gaps.parquet")
    with pytest.raises(DataError, match=r"1 of 3 rows .* have no label \(first: row 2 below the header\)"):
        csv(str(root / "gaps.parquet"))


def test_parquet_and_csv_mean_the_same(write: Write) -> None:
    file = write("path,label,split,patient\n0.png,a,train,p1\n1.png,b,,\n2.png,b,test,p2\n3.png,a,,p1\n")
    frame = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(4)],
            "label": pd.Categorical(["a", "b", "b", "a"]),
            "split": ["train", None, "test", np.nan],
            "patient": ["p1", None, "p2", "p1"],
        }
    )
    frame.to_parquet(file.with_suffix(".parquet"))
    one = csv(str(file), group_columns=["patient"])
    other = csv(str(file.with_suffix(".parquet")), group_columns=["patient"])
    columns = ("id", "label", "split", "digest", "patient")
    assert rows_of(one, *columns) == rows_of(other, *columns)
    assert [split for (split,) in rows_of(one, "split")] == ["train", None, "test", None]
    assert [patient for (patient,) in rows_of(one, "patient")] == ["p1", None, "p2", "p1"]
    assert one.fingerprint() == other.fingerprint()


def test_columns_of_parquet_that_are_no_text_are_not_read(write: Write) -> None:
    root = write("").parent
    content = pa.table({"path": ["0.png", "1.png"], "label": ["a", "b"], "bytes": [b"x", b"y"], "tags": [["a"], ["b"]]})
    pq.write_table(content, root / "labels.parquet")
    assert len(csv(str(root / "labels.parquet"))) == 2
    with pytest.raises(DataError, match="no column 'tags' of text or numbers"):
        csv(str(root / "labels.parquet"), label_column="tags")


def test_paths_are_relative_to_the_root(write: Write, tmp_path: Path) -> None:
    file = write("path,label\n0.png,a\n./1.png,b\nx/../2.png,b\n")
    elsewhere = tmp_path / "labels.csv"
    file.rename(elsewhere)
    (file.parent / "x").mkdir()
    table = csv(str(elsewhere), root=str(file.parent))
    assert table.frame["id"].tolist() == ["0.png", "1.png", "2.png"]
    with pytest.raises(DataError, match="3 of 3 images .* do not exist below .*first: 0.png.* Set data.root"):
        csv(str(elsewhere))
    with pytest.raises(DataError, match="Set data.root .* Did you mean 'photos'"):
        csv(str(elsewhere), root=str(tmp_path / "photo"))


def test_absolute_paths_below_the_root_have_relative_ids(write: Write, tmp_path: Path) -> None:
    root = write("").parent
    (tmp_path / "labels.csv").write_text(f"path,label\n{root}/0.png,a\n{root}/1.png,b\n")
    table = csv(str(tmp_path / "labels.csv"), root=str(root))
    assert rows_of(table, "id", "path") == [("0.png", f"{root}/0.png"), ("1.png", f"{root}/1.png")]


def test_missing_files_are_counted(write: Write) -> None:
    file = write("path,label\n0.png,a\n8.png,b\n9.png,b\n")
    with pytest.raises(DataError, match=r"2 of 3 images of .* \(first: 8.png\)"):
        csv(str(file))
    with pytest.raises(DataError, match=r"Write / in place of \\"):
        csv(str(write("path,label\nsub\\0.png,a\n1.png,b\n")))


def test_the_same_row_twice_is_used_once_with_a_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    table = csv(str(write("path,label,note\n0.png,a,x\n1.png,b,x\n./0.png,a,y\n")))
    assert table.frame["id"].tolist() == ["0.png", "1.png"]
    assert "names 1 images more than once (first: 0.png). They are used once." in caplog.text


@pytest.mark.parametrize("column", ["label", "split", "patient"])
def test_rows_of_an_image_that_differ_are_an_error(column: str, write: Write) -> None:
    rows = {"label": "0.png,b,train,p1", "split": "0.png,a,test,p1", "patient": "0.png,a,train,p2"}
    file = write(f"path,label,split,patient\n0.png,a,train,p1\n1.png,b,train,p1\n{rows[column]}\n")
    with pytest.raises(DataError, match=rf"names 1 images more than once, .*first: 0.png, with another {column}"):
        csv(str(file), group_columns=["patient"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path_column": "pth"}, "no column 'pth' .*Did you mean 'path'.* Set data.path_column"),
        ({"label_column": "labl"}, "no column 'labl' .*Did you mean 'label'.* Set data.label_column"),
        ({"split_column": "splitt"}, "no column 'splitt' .*Did you mean 'split'.* Set data.split_column"),
        ({"group_columns": ["patinet"]}, "no column 'patinet' .*Did you mean 'patient'.* Set data.group_columns"),
        ({"label_columns": ["labell"]}, "no column 'labell' .*Did you mean 'label'.* Set data.label_columns"),
    ],
)
def test_a_misspelt_column_names_the_nearest(options: dict[str, Any], message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        csv(str(write("path,label,split,patient\n0.png,a,,p1\n1.png,b,,p2\n")), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_columns": "patient"}, r"Type data.group_columns=\[patient\]"),
        ({"label_columns": "a"}, r"Type data.label_columns=\[a\]"),
        ({"label_columns": ["a", "a"]}, "data.label_columns names a column twice"),
        ({"label_columns": ["a"], "label_separator": ";"}, "exclude each other"),
        ({"label_separator": ""}, "data.label_separator is empty"),
        ({"val_means": "tset"}, "Did you mean 'test'"),
    ],
)
def test_settings_that_make_no_sense_say_what_to_type(options: dict[str, Any], message: str, write: Write) -> None:
    with pytest.raises(ConfigError, match=message):
        csv(str(write("path,label,patient,a\n0.png,a,p1,1\n1.png,b,p2,0\n")), **options)


def test_a_misspelt_table_names_the_nearest(write: Write) -> None:
    file = write("path,label\n0.png,a\n1.png,b\n")
    with pytest.raises(
        DataError, match="The table .*lables.csv does not exist. Set data.path .* Did you mean 'labels.csv'"
    ):
        csv(str(file.with_name("lables.csv")))
    with pytest.raises(DataError, match="is a folder.*data=folder data.root="):
        csv(str(file.parent))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("path,label\n0.png,a,b\n", "line 2 has 3 cells under 2 columns"),
        ("path,label,label\n0.png,a,b\n", "two columns are called 'label'"),
        ('path,label\n"0.png,a\n', "cannot be read as a table"),
        ("path,label\n,a\n1.png,b\n", r"1 of 2 rows .* have no path \(first: row 1 below the header\)"),
        ("path,label\n0.png,\n1.png,b\n2.png, \n", "2 of 3 rows .* have no label .* Fill them in, or remove the rows"),
        ("path,label,split\n0.png,a,tset\n1.png,b,\n", "holds 'tset'; expected train, val, test.*Did you mean 'test'"),
    ],
)
def test_a_table_that_is_none_is_one_clear_line(text: str, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message) as caught:
        csv(str(write(text)))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_one_clear_line(write: Write) -> None:
    file = write("path,label\n0.png,caf\xe9\n", encoding="latin-1")
    (file.parent / "labels.parquet").write_text("no parquet")
    for name in ("labels.csv", "labels.parquet", "0.png"):
        with pytest.raises(DataError, match="cannot be read as a table: .* Expected CSV") as caught:
            csv(str(file.parent / name))
        assert "\n" not in str(caught.value)


def test_labels_between_separators(write: Write) -> None:
    file = write("path,label\n0.png,b; a\n1.png,a;a;\n2.png,\n3.png,c\n")
    table = csv(str(file), label_separator=";")
    assert table.task == "multilabel" and table.labels == ("a", "b", "c")
    assert table.frame["label"].tolist() == [("a", "b"), ("a",), (), ("c",)]
    assert table.targets().tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_labels_in_columns(write: Write) -> None:
    file = write("path,cloud,air\n0.png,1,0\n1.png,1.0,TRUE\n2.png,,false\n")
    table = csv(str(file), label_columns=["cloud", "air"])
    assert table.task == "multilabel" and table.labels == ("air", "cloud")
    assert table.targets().tolist() == [[0, 1], [1, 1], [0, 0]]
    with pytest.raises(DataError, match="The column 'air' of .* holds '-1'; a label column holds 0 or 1"):
        csv(str(write("path,cloud,air\n0.png,1,-1\n")), label_columns=["cloud", "air"])


def test_columns_with_one_label_in_every_row_are_one_label_per_image(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    file = write("path,cloud,air\n0.png,1,0\n1.png,0,1\n2.png,1,\n")
    with caplog.at_level("INFO"):
        table = csv(str(file), label_columns=["cloud", "air"])
    assert table.task == "multiclass" and table.frame["label"].tolist() == ["cloud", "air", "cloud"]
    assert "one label per image" in caplog.text
    assert as_multilabel(table).names() == [("cloud",), ("air",), ("cloud",)]
    for row in ("1,1", "0,0"):
        more = csv(str(write(f"path,cloud,air\n0.png,1,0\n1.png,0,1\n2.png,{row}\n")), label_columns=["cloud", "air"])
        assert more.task == "multilabel"


@pytest.mark.parametrize("separator", [None, ",", "|"])
@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["['a', 'b']", "['b']", "[]"], [("a", "b"), ("b",), ()]),
        (['["b", "a"]', '["it\'s"]', ""], [("a", "b"), ("it's",), ()]),
        (["[a, big dog]", "[ b ]", "[1, 2]"], [("a", "big dog"), ("b",), ("1", "2")]),
    ],
)
def test_lists_written_as_text_are_lists(
    cells: list[str], expected: list[tuple[str, ...]], separator: str | None, write: Write
) -> None:
    rows = pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "label": cells})
    table = csv(str(write(rows.to_csv(index=False))), label_separator=separator)
    assert table.task == "multilabel" and table.frame["label"].tolist() == expected


def test_lists_of_one_are_one_label_per_image_and_names_in_brackets_are_names(write: Write) -> None:
    assert csv(str(write("path,label\n0.png,['a']\n1.png,['b']\n"))).frame["label"].tolist() == ["a", "b"]
    assert csv(str(write("path,label\n0.png,[a]\n1.png,b\n"))).labels == ("[a]", "b")


@pytest.mark.parametrize("odd", ["['a' 'b']", "['a', 'b'", "[['a'], 'b']", "a", "array(['a'])"])
def test_a_list_that_cannot_be_read_is_refused_and_never_split(odd: str, write: Write) -> None:
    rows = pd.DataFrame({"path": ["0.png", "1.png"], "label": ["['a', 'b']", odd]})
    file = write(rows.to_csv(index=False))
    for separator in (None, ","):
        with pytest.raises(DataError, match=r"1 of its cells cannot be read as one \(first: .* in row 2 below"):
            csv(str(file), label_separator=separator)


def test_names_without_an_ending_are_found_where_only_one_image_is_called_so(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    file = write("path,label\n0,a\n1.png,b\n2,a\n")
    with caplog.at_level("INFO"):
        table = csv(str(file))
    assert table.frame["id"].tolist() == ["0.png", "1.png", "2.png"]
    assert "2 names" in caplog.text and "0.png" in caplog.text
    (file.parent / "2.JPG").write_bytes((file.parent / "2.png").read_bytes())
    with pytest.raises(DataError, match=r"several images are called so \(first: 2, with .JPG and .png\)"):
        csv(str(file))
    (file.parent / "v1.2.png").write_bytes((file.parent / "2.png").read_bytes())
    dotted = csv(str(write("path,label\nv1.2,a\n1.png,b\n1,b\n")))
    assert dotted.frame["id"].tolist() == ["v1.2.png", "1.png"]  # the row that names an image again is used once
    with pytest.raises(DataError, match="1 of 2 images .* do not exist"):
        csv(str(write("path,label\nlost,a\n1.png,b\n")))


def test_a_label_column_without_any_image_is_an_error(write: Write) -> None:
    table = csv(str(write("path,a,b\n0.png,1,0\n1.png,1,0\n2.png,0,0\n3.png,1,0\n")), label_columns=["a", "b"])
    with pytest.raises(DataError, match=r"1 of 2 classes have no image .*\(first: 'b'\)"):
        make_splits(table, val=0.3, test=0.3, seed=0)
    with pytest.raises(DataError, match="None of the 2 images has a label"):
        csv(str(write("path,label\n0.png,\n1.png,;\n")), label_separator=";")


def test_group_columns_are_text_and_an_empty_cell_is_no_group(write: Write) -> None:
    table = csv(str(write("path,label,patient\n0.png,a,1\n1.png,b, 1 \n2.png,a,\n")), group_columns=["patient"])
    assert table.groups == ("patient",)
    assert table.frame["patient"].tolist() == ["1", "1", None]
    with pytest.raises(DataError, match="A group column cannot be called 'id'"):
        csv(str(write("path,label,id\n0.png,a,1\n1.png,b,2\n")), group_columns=["id"])


def test_a_column_almost_called_split_is_not_passed_over_in_silence(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    csv(str(write("path,label,Split\n0.png,a,test\n1.png,b,\n")))
    assert "no column 'split', so splits are made. Did you mean 'Split'?" in caplog.text


def test_val_stays_validation_unless_asked(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    text = "path,label,split\n0.png,a,train\n1.png,b,training\n2.png,a,valid\n3.png,b,Validation\n"
    with caplog.at_level(logging.INFO):
        assert csv(str(write(text))).frame["split"].tolist() == ["train", "train", "val", "val"]
    assert not caplog.records
    assert csv(str(write(text)), val_means="test").frame["split"].tolist() == ["train", "train", "test", "test"]
