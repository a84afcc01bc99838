"""Photos of three digits with a given test split."""

from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 training and 24 test images of three classes."""
    root: Path = tmp_path_factory.mktemp("photos")
    images, targets = load_digits(return_X_y=True)
    for label in range(3):
        for number, image in enumerate(images[targets == label][:28]):
            folder = root / ("train" if number < 20 else "test") / f"digit {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.reshape(8, 8) * 15).astype("uint8")).resize((32, 32)).save(folder / f"{number}.png")
    return root
