"""File kinds: what of a folder belongs to a system and not to the data, and what files are where images are missing."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.data.decoding import UNREADABLE, open_image

# folders and files of systems and programs, in lower case; those whose name begins with a dot are hidden anyway
SYSTEM = (
    "@eadir", "@thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "__pycache__",
    "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
)  # fmt: skip
# folders of small copies, where they lie within a class
COPIES = ("thumbs", "thumbnails", "_thumbs", "_thumbnails")
# what makes images of files that are none to us
_REMEDIES = {
    (".heic", ".heif"): "convert them to JPEG, for example with heif-convert",
    (".dcm", ".dicom"): "read them with pydicom, and save them as PNG of 16 bits",
    (".npy", ".npz", ".mat"): "save each array as PNG or TIFF",
    (".nii", ".mha", ".nrrd"): "save their slices as PNG of 16 bits, for example with SimpleITK",
    (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".raw"): "develop them, for example with rawpy",
    (".svg", ".eps", ".ps", ".pdf", ".ai"): "draw them as PNG",
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg"): "save frames as JPEG (ffmpeg), and see data=sequences",
    (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"): "unpack them",
    (".parquet", ".arrow", ".csv", ".tsv"): "a table is read by data=csv, a saved data set by data=hub",
    (".tfrecord", ".h5", ".hdf5", ".lmdb"): "save their images as files",
    (".svs", ".ndpi", ".czi", ".nd2", ".lif"): "save tiles as PNG or TIFF, for example with tifffile or openslide",
    (".jxl",): "convert them to PNG (djxl)",
}
_SHOWN = 3


def is_hidden(name: str, *, within_class: bool = False) -> bool:
    """Return whether a file or folder is no part of the data by its name."""
    lower = name.lower()
    return name.startswith(".") or lower in SYSTEM or (within_class and lower in COPIES)


def hidden_folders(top: Path, endings: frozenset[str]) -> Iterator[Path]:
    """Yield the folders that are left out for their name and hold images, the first ones of each branch."""
    for place, folders, _ in os.walk(top):
        depth = len(Path(place).relative_to(top).parts)
        for name in sorted(folders):
            if is_hidden(name, within_class=depth > 0) and _holds_images(Path(place, name), endings):
                yield Path(place, name)
        folders[:] = [name for name in folders if not is_hidden(name, within_class=depth > 0)]


def _holds_images(folder: Path, endings: frozenset[str]) -> bool:
    return any(os.path.splitext(name)[1].lower() in endings for _, _, names in os.walk(folder) for name in names)


def found_instead(top: Path) -> str:
    """Return in sentences which files there are below a folder without images, and what makes images of them."""
    files = sorted(
        Path(place, name)
        for place, _, names in os.walk(top)
        for name in sorted(names)
        if not is_hidden(name) and not any(is_hidden(part) for part in Path(place).relative_to(top).parts)
    )
    if not files:
        return "It holds no files."
    kinds = Counter(_ending(file) for file in files)
    told = []
    for ending, number in kinds.most_common(_SHOWN):
        first = next(file for file in files if _ending(file) == ending)
        remedy = _remedy(ending, first)
        kind = f"of the kind {ending}" if ending else "without a file ending"
        told.append(f"{number:,} files {kind} (first: {first.relative_to(top).as_posix()}{remedy})")
    return f"It holds {'; '.join(told)}."


def _ending(file: Path) -> str:
    return file.suffix.lower()


def _remedy(ending: str, file: Path) -> str:
    """Return what to do about files of a kind, by one of them; nothing where that is not known."""
    known = next((remedy for endings, remedy in _REMEDIES.items() if ending in endings), None)
    if known is not None:
        return f": {known}"
    try:
        with file.open("rb") as stream:
            kind = str(open_image(stream.read()).format)
    except UNREADABLE:
        return ""
    return f", which is {kind}: name them with the ending of it, such as .{kind.lower()}"


def places_below(folders: Iterable[Path], top: Path) -> str:
    """Return a few folders by their place below another."""
    names = [folder.relative_to(top).as_posix() for folder in folders]
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
