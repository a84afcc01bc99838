"""Tables of photos of pieces, several of each: the numbers that end their names tell which belong together."""

import csv
import re
from pathlib import Path


def write_table(folder: Path, gap: int, path: Path) -> int:
    """Write path, label and piece of each image, and return the number of pieces."""
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    numbers = [(int(found[0]) if (found := re.findall(r"\d+$", file.stem)) else None, file) for file in files]
    pieces: dict[Path, str] = {file: file.stem for number, file in numbers if number is None}
    last, piece = -gap - 1, 0
    for number, file in sorted((number, file) for number, file in numbers if number is not None):
        piece += number - last > gap
        last, pieces[file] = number, f"piece{piece}"
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "piece"])
        writer.writerows((str(file.absolute()), file.parent.name, pieces[file]) for file in files)
    return len(set(pieces.values()))
