"""Frame store: which frames a sequence has, which of them are looked at, and their content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.decoding import DecodedImage
from finetune.data.table import ImageStore, ImageTable, build_frame, content_digest, value_range_of
from finetune.data.value_range import ValueRange, ValueSpan
from finetune.errors import ConfigError

_SHOWN = 3


class CheckedImage(NamedTuple):
    """What was found when an image was read.

    Attributes:
        digest: Of its content; None where it cannot be read.
        problem: Why it cannot be read.
        spans: Its values where they are of more than 8 bits; of a sequence those of its frames.
    """

    digest: str | None
    problem: str | None = None
    spans: tuple[ValueSpan, ...] = ()


@dataclass(frozen=True)
class SequenceStore:
    """Reads sequences, addressed by the path of their row.

    Attributes:
        images: Reads frames.
        frames: Paths of the frames of each sequence that are looked at, in order.
        limit: How many these are at most.
        digests: Of frames that were read, by path, so that none is read twice for it.
    """

    images: ImageStore
    frames: Mapping[str, tuple[str, ...]]
    limit: int
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def value_range(self) -> ValueRange | None:
        """What values of more than 8 bits are black and white in its frames."""
        return value_range_of(self.images)

    def open(self, path: str, channels: int) -> DecodedImage:
        """Return some frames side by side as a picture, for people."""
        return DecodedImage(self.read(path, channels), channels, name=path)

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the first, the middle and the last frame side by side, for people."""
        frames = self.frames[path]
        chosen = dict.fromkeys(frames[place * (len(frames) - 1) // (_SHOWN - 1)] for place in range(_SHOWN))
        images = [self.images.read(frame, channels) for frame in chosen]
        height = images[0].height
        parts = [image.resize((max(1, image.width * height // image.height), height)) for image in images]
        strip = Image.new(parts[0].mode, (sum(part.width for part in parts), height))
        left = 0
        for part in parts:
            strip.paste(part, (left, 0))
            left += part.width
        return strip

    def content(self, path: str) -> bytes:
        """Return the digests of all frames that are looked at, in order, of which the sequence's own is made."""
        return _joined([content_digest(self.images.content(frame)) for frame in self.frames[path]])


def _joined(digests: Sequence[str]) -> bytes:
    """Return the content of a sequence whose frames have these digests."""
    return "\n".join(digests).encode()


def evenly_spaced(number: int, limit: int) -> list[int]:
    """Return which of so many frames are looked at: all, or the middles of as many equal stretches as the limit.

    Source: Wang et al. 2016, Temporal Segment Networks, section 3.1, with the middle in place of a random frame.

    Raises:
        ConfigError: The limit is below 1.
    """
    if limit < 1:
        raise ConfigError(f"data.frames={limit} must be a whole number of 1 or more: frames of a sequence at most.")
    if number <= limit:
        return list(range(number))
    return [(2 * place + 1) * number // (2 * limit) for place in range(limit)]


def sequence_limit(table: ImageTable) -> int | None:
    """Return how many frames a sequence has at most; None where the table is of single images."""
    return table.store.limit if isinstance(table.store, SequenceStore) else None


def frame_table(table: ImageTable) -> tuple[ImageTable, npt.NDArray[np.int64]]:
    """Return the frames of all sequences as images, in order, and the rows (N + 1,) where sequences begin and end."""
    store = table.store
    assert isinstance(store, SequenceStore)
    members = [store.frames[path] for path in table.frame["path"].tolist()]
    sizes = [len(frames) for frames in members]
    paths = [frame for frames in members for frame in frames]
    ids = table.frame["id"].tolist()
    numbers = [f"{name}#{number}" for name, size in zip(ids, sizes, strict=True) for number in range(size)]
    owner = np.repeat(np.arange(len(table)), sizes)
    columns = {name: table.frame[name].to_numpy(object)[owner].tolist() for name in ("label", "split")}
    digests = [store.digests.get(path) for path in paths]
    frame = build_frame({"id": numbers, "path": paths, "digest": digests, **columns})
    return replace(table, frame=frame, store=store.images, groups=(), skipped=()), np.cumsum([0, *sizes])


def sequence_digests(
    table: ImageTable, starts: npt.NDArray[np.int64], frames: Sequence[CheckedImage]
) -> list[CheckedImage]:
    """Return the digest of each sequence, or why it cannot be read, from what was found of its frames.

    Args:
        table: The sequences, whose store remembers the digests.
        starts: From `frame_table`.
        frames: Of each frame its digest, or why it cannot be read.
    """
    store = table.store
    assert isinstance(store, SequenceStore)
    found: list[CheckedImage] = []
    for row, path in enumerate(table.frame["path"].tolist()):
        checked = frames[starts[row] : starts[row + 1]]
        pairs = list(zip(store.frames[path], checked, strict=True))
        bad = next((f"its frame {frame}: {problem}" for frame, (_, problem, _) in pairs if problem), None)
        store.digests.update({frame: value for frame, (value, _, _) in pairs if value is not None})
        whole = None if bad else content_digest(_joined([store.digests[frame] for frame in store.frames[path]]))
        found.append(CheckedImage(whole, bad, tuple(span for each in checked for span in each.spans)))
    return found


def require_single_images(table: ImageTable, what: str, instead: str) -> None:
    """Refuse sequences where only single images make sense.

    Args:
        table: The table.
        what: Needs single images.
        instead: What to type.

    Raises:
        ConfigError: The table is of sequences.
    """
    if sequence_limit(table) is not None:
        raise ConfigError(f"{what} is for single images, and these are sequences of frames. {instead}")
