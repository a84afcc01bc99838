"""Features and classes that the tests of heads share."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor


@pytest.fixture(scope="session")
def digit_features() -> tuple[Tensor, Tensor]:
    """Pixels of 400 digits in float64, and their classes."""
    images, classes = load_digits(return_X_y=True)
    return torch.from_numpy(images[:400] / 16), torch.from_numpy(classes[:400])
