"""A sample of images kept while they are predicted, so that drift costs no second pass and little memory."""

import numpy as np
import numpy.typing as npt

from finetune.evaluation.drift.drift_report import DriftArray, DriftSample
from finetune.evaluation.drift.reference import sample_rows


class SampleRecorder:
    """Remembers features and probabilities of a random choice of images that go by."""

    def __init__(self, total: int) -> None:
        """Choose among `total` images, which come in an order that nobody chose for this."""
        self.chosen: npt.NDArray[np.int64] = sample_rows(np.arange(total))
        self.passed = 0
        self.features: list[DriftArray] = []
        self.probabilities: list[DriftArray] = []

    def add(self, features: DriftArray, probabilities: DriftArray) -> None:
        """Look at the next images: features (B, F) and probabilities (B, K)."""
        places = np.arange(self.passed, self.passed + len(features))
        inside = np.isin(places, self.chosen)
        self.passed += len(features)
        self.features.append(features[inside])
        self.probabilities.append(probabilities[inside])

    @property
    def sample(self) -> DriftSample:
        """What is remembered."""
        return DriftSample(np.concatenate(self.features), np.concatenate(self.probabilities))
