"""How much the model of each fold counts in the ensemble of a cross-validation, by what it did on held-out images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from finetune.evaluation.predictions import Predictions

# held-out images of a fold, below which they say nothing of its model
_FEW = 20
# standard errors by which a member has to be better to count e times as much; with 1 the ensemble is too near to its
# best member, with more one whose epoch was chosen badly pulls it down (20 dealings of three sets of images)
_ERRORS = 2


def fold_weights(folds: Sequence[Predictions], wanted: str) -> npt.NDArray[np.float64]:
    """Return the weight of each fold's model (F,), all of which sum to 1.

    With skill they are proportional to exp(kappa / (2 error)): kappa is Cohen's, the agreement of labels and
    predictions beyond chance (0 for a model that always names the commonest class), and error the standard error of an
    accuracy as good as that of all folds, on as many images as the fold held out. Where a fold held out too few images,
    or no image was missed, all count alike.

    Args:
        folds: What each fold says of its held-out images.
        wanted: skill or equal.

    Source: Cohen 1960, A Coefficient of Agreement for Nominal Scales. That weights are exponential in what was held
    out is as in stacking by pseudo-Bayesian model averaging (Yao et al. 2018, section 3.4).
    """
    number = len(folds)
    equal = np.full(number, 1 / number)
    sizes = np.array([fold.num for fold in folds])
    if wanted == "equal" or sizes.min() < _FEW:
        return equal
    told = [(fold.targets.ravel(), fold.predicted.ravel()) for fold in folds]
    right = np.concatenate([targets == guesses for targets, guesses in told]).mean()
    if right in (0, 1):
        return equal
    errors = _ERRORS * np.sqrt(right * (1 - right) / sizes)
    return np.asarray(
        softmax([cohen_kappa(*pair) / error for pair, error in zip(told, errors, strict=True)]), np.float64
    )


def cohen_kappa(targets: npt.NDArray[np.int64], guesses: npt.NDArray[np.int64]) -> float:
    """Return Cohen's kappa; 0 where all labels and all predictions are the same, of which nothing can be learnt."""
    if len(np.unique(np.concatenate([targets, guesses]))) < 2:
        return 0.0
    return float(cohen_kappa_score(targets, guesses))
