"""Verification: every image is read and decoded once before anything is trained, on all cores."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from PIL import Image

from finetune.data.cache.file_digests import KnownFiles, file_state
from finetune.data.decoding import DecodedImage, name_unreadable, open_image, unreadable_reason
from finetune.data.image_stores import ArrayStore, FileStore
from finetune.data.sequences.frame_store import CheckedImage, SequenceStore, frame_table, sequence_digests
from finetune.data.table import ImageTable, content_digest, object_column, with_value_range
from finetune.data.value_range import ValueRange, ValueSpan, find_value_range, measure_span, tell_value_range
from finetune.errors import ConfigError, DataError, nearest
from finetune.runtime.device import cores

log = logging.getLogger(__name__)

_POLICIES = ("error", "skip")


# more images than are checked in a few seconds
_MANY = 20_000


def verify_images(
    table: ImageTable, unreadable: str, known: KnownFiles | None = None, value_range: ValueRange | None = None,
    *, find_range: bool = True,
) -> ImageTable:  # fmt: skip
    """Read and decode every image once, on all cores, and note its digest, so that nothing unreadable is met later.

    The table's store then reads values of more than 8 bits by one range for all images.

    Args:
        table: The images.
        unreadable: error, or skip to leave unreadable images out of every split.
        known: Files that were read before; those that have not changed since are not read again.
        value_range: What values of more than 8 bits are black and white; None for none.
        find_range: Whether the range is found over the images where none is given, and said.

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
    bad = [(name, each.problem) for name, each in zip(ids, found, strict=True) if each.problem]
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:3])
        what = "sequences" if of_sequences else "images"
        message = f"{len(bad):,} of {len(table):,} {what} cannot be read (first: {listed})."
        if len(bad) == len(table):
            raise DataError(f"{message} There is nothing to train on: restore them.")
        if unreadable == "error":
            raise DataError(f"{message} Remove them, or set data.unreadable=skip.")
        log.warning("%s They are left out.", message)
    rows = [row for row, each in enumerate(found) if each.problem is None]
    frame = table.frame.iloc[rows].reset_index(drop=True)
    frame = frame.assign(digest=object_column([found[row].digest for row in rows]))
    spans = [span for row in rows for span in found[row].spans]
    chosen = find_value_range(spans) if value_range is None and find_range else value_range
    if find_range:
        tell_value_range(spans, len(rows), chosen, given=value_range is not None)
    return with_value_range(replace(table, frame=frame, skipped=(*table.skipped, *(name for name, _ in bad))), chosen)


def check_images(table: ImageTable, known: KnownFiles | None) -> list[CheckedImage]:
    """Return of each image digest and values of more than 8 bits, or why it cannot be read.

    Files that have not changed are not read again.
    A sequence can be read where all its frames can.
    """
    if isinstance(table.store, SequenceStore):
        frames, starts = frame_table(table)
        return sequence_digests(table, starts, check_images(frames, known))
    paths = table.frame["path"].tolist()
    noted = {} if known is None else known.lookup(paths)
    before = {path: CheckedImage(each.digest, None, _spans_of(each.span)) for path, each in noted.items()}
    unread = [path for path in dict.fromkeys(paths) if path not in before]
    states = {} if known is None else {path: file_state(path) for path in unread}
    Image.init()  # its table of formats is not made for several threads at once
    with ThreadPoolExecutor(cores()) as pool:
        fresh = dict(zip(unread, pool.map(lambda path: _check(table, path), unread), strict=True))
    if known is not None and fresh:
        read = {path: each.digest for path, each in fresh.items() if each.digest is not None}
        known.note(read, states, {path: json.dumps(each.spans) for path, each in fresh.items() if each.spans})
    return [before.get(path) or fresh[path] for path in paths]


def _spans_of(stored: str) -> tuple[ValueSpan, ...]:
    """Return the values of an image as they were noted."""
    return tuple(ValueSpan(*each) for each in json.loads(stored)) if stored else ()


def _check(table: ImageTable, path: str) -> CheckedImage:
    """Return the digest of an image and its values of more than 8 bits, or why it cannot be read."""
    try:
        content = table.store.content(path)
        spans = () if isinstance(table.store, ArrayStore) else _decode(content, path)
    except (DataError, OSError) as error:
        return CheckedImage(None, unreadable_reason(error.__cause__ or error))
    return CheckedImage(content_digest(content), None, spans)


def _decode(content: bytes, name: str) -> tuple[ValueSpan, ...]:
    """Decode an image, a JPEG at an eighth of its size, which finds the same damage sooner, and return its values.

    Raises:
        UnreadableError: It cannot be decoded.
    """
    with name_unreadable(name):
        image = open_image(content)
        DecodedImage(image, 3, name=name).whole(8)
        span = measure_span(image)
    return () if span is None else (span,)
