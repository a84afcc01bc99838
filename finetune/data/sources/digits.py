"""The bundled digits: a data set that needs no download."""

import numpy as np

from finetune.data.image_stores import ArrayStore
from finetune.data.sources.table_builder import build_table
from finetune.data.table import ImageTable


def digits() -> ImageTable:
    """Return scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    ids = [f"digits/{number:04d}" for number in range(len(images))]
    return build_table({"id": ids, "path": ids, "label": [str(label) for label in bundled.target]}, ArrayStore(images))
