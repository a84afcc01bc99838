"""Unlabelled images: a folder of any depth, or a table of paths."""

import os
from pathlib import Path
from typing import Any

from finetune.data.image_stores import FileStore
from finetune.data.sources.file_kinds import found_instead
from finetune.data.sources.folders import files_below
from finetune.data.sources.table_builder import check_text, existing_path
from finetune.data.sources.table_reader import column_of, read_cells, require_all
from finetune.data.sources.tables import check_present, drop_repeated_rows, image_id, with_endings
from finetune.data.table import ImageTable, build_frame
from finetune.errors import ConfigError, DataError

NO_LABEL = "unlabelled"


def unlabelled(root: str | None = None, path: str | None = None, path_column: str = "path") -> ImageTable:
    """Return the images below a folder, hidden ones left out, or those that a table names.

    Args:
        root: The folder; with a table, what its relative paths are relative to, by default its own folder.
        path: A CSV or Parquet table; None for all images of the folder.
        path_column: Column of image paths.

    Raises:
        ConfigError: Neither is given.
        DataError: One is not there, there is no image, or the table names images that are not there.
    """
    if root is None and path is None:
        raise ConfigError("data=unlabelled needs images. Set data.root to a folder, or data.path to a table of paths.")
    columns = images_of_table(path, root, path_column) if path is not None else images_below(str(root))
    check_text(columns["id"])
    count = len(columns["id"])
    return ImageTable(
        build_frame({**columns, "label": [NO_LABEL] * count, "split": ["train"] * count}),
        (NO_LABEL,), "multiclass", FileStore(),
    )  # fmt: skip


def images_below(root: str) -> dict[str, list[Any]]:
    """Return id and path of each image below a folder."""
    top = existing_path(root, "The folder", "data.root")
    if not top.is_dir():
        raise DataError(f"data.root={root} is a file. Name a folder, or use data.path={root} for a table of paths.")
    images, _ = files_below(top)
    if not images:
        raise DataError(
            f"There is no image under {root} (.jpg, .png, .webp, .tif …). Point data.root at images. "
            f"{found_instead(top)}"
        )
    return {"id": [file.relative_to(top).as_posix() for file in images], "path": [str(file) for file in images]}


def images_of_table(path: str, root: str | None, column: str) -> dict[str, list[Any]]:
    """Return id and path of each image that a table names."""
    file = existing_path(path, "The table", "data.path")
    if file.is_dir():
        raise DataError(f"data.path={path} is a folder. Use data.root={path}, or name a CSV or Parquet file.")
    names = column_of(read_cells(file), column, "path_column", path)
    require_all(names, column, path)
    base: Path = existing_path(root, "The folder", "data.root") if root else file.parent
    columns = drop_repeated_rows({"id": with_endings([image_id(name, base) for name in names], base, path)}, path)
    columns["path"] = [os.path.join(base, name) for name in columns["id"]]
    check_present(columns, path, base)
    return columns


def is_unlabelled(table: ImageTable) -> bool:
    """Return whether images come from here."""
    return table.labels == (NO_LABEL,)


def refuse_unlabelled(table: ImageTable) -> None:
    """Refuse images without labels where labels are needed.

    Raises:
        DataError: The images have none.
    """
    if is_unlabelled(table):
        raise DataError(
            "These images have no labels, so no classifier can be trained or judged on them. Use finetune pretrain "
            "for images without labels, or data=folder or data=csv for images with them."
        )
