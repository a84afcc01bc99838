"""Verification: every image is read and decoded once before anything is trained, on all cores."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from PIL import Image

from finetune.data.cache.file_digests import KnownFiles, file_state
from finetune.data.decoding import unreadable_reason
from finetune.data.image_stores import ArrayStore, FileStore, decode
from finetune.data.sequences.frame_store import SequenceStore, frame_table, sequence_digests
from finetune.data.table import ImageTable, content_digest, object_column
from finetune.errors import ConfigError, DataError, nearest
from finetune.runtime.device import cores

log = logging.getLogger(__name__)

_POLICIES = ("error", "skip")


# more images than are checked in a few seconds
_MANY = 20_000


def verify_images(table: ImageTable, unreadable: str, known: KnownFiles | None = None) -> ImageTable:
    """Read and decode every image once, on all cores, and note its digest, so that nothing unreadable is met later.

    Args:
        table: The images.
        unreadable: error, or skip to leave unreadable images out of every split.
        known: Files that were read before; those that have not changed since are not read again.

    Raises:
        ConfigError: The policy is not known.
        DataError: Images cannot be read and the policy is error, or none is left.
    """
    if unreadable not in _POLICIES:
        raise ConfigError(
            f"data.unreadable={unreadable} is not known. Use error or skip.{nearest(unreadable, _POLICIES)}"
        )
    if len(table) > _MANY:
        log.info("Checking that %s images can be read.", f"{len(table):,}")
    of_sequences = isinstance(table.store, SequenceStore)
    found = check_images(table, known if isinstance(table.store, FileStore | SequenceStore) else None)
    ids = table.frame["id"].tolist()
    bad = [(name, problem) for name, (_, problem) in zip(ids, found, strict=True) if problem]
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:3])
        what = "sequences" if of_sequences else "images"
        message = f"{len(bad):,} of {len(table):,} {what} cannot be read (first: {listed})."
        if len(bad) == len(table):
            raise DataError(f"{message} There is nothing to train on: restore them.")
        if unreadable == "error":
            raise DataError(f"{message} Remove them, or set data.unreadable=skip.")
        log.warning("%s They are left out.", message)
    rows = [row for row, (_, problem) in enumerate(found) if problem is None]
    frame = table.frame.iloc[rows].reset_index(drop=True)
    frame = frame.assign(digest=object_column([found[row][0] for row in rows]))
    return replace(table, frame=frame, skipped=(*table.skipped, *(name for name, _ in bad)))


def check_images(table: ImageTable, known: KnownFiles | None) -> list[tuple[str | None, str | None]]:
    """Return of each image its digest, or why it cannot be read; files that have not changed are not read again.

    A sequence can be read where all its frames can.
    """
    if isinstance(table.store, SequenceStore):
        frames, starts = frame_table(table)
        return sequence_digests(table, starts, check_images(frames, known))
    paths = table.frame["path"].tolist()
    before = {} if known is None else known.digests(paths)
    unread = [path for path in dict.fromkeys(paths) if path not in before]
    states = {} if known is None else {path: file_state(path) for path in unread}
    Image.init()  # its table of formats is not made for several threads at once
    with ThreadPoolExecutor(cores()) as pool:
        fresh = dict(zip(unread, pool.map(lambda path: _check(table, path), unread), strict=True))
    if known is not None and fresh:
        known.note({path: found for path, (found, _) in fresh.items() if found is not None}, states)
    return [(before[path], None) if path in before else fresh[path] for path in paths]


def _check(table: ImageTable, path: str) -> tuple[str | None, str | None]:
    """Return the digest of an image, or why it cannot be read."""
    try:
        content = table.store.content(path)
        if not isinstance(table.store, ArrayStore):
            decode(content, 3, name=path, draft=True)
    except (DataError, OSError) as error:
        return None, unreadable_reason(error.__cause__ or error)
    return content_digest(content), None
