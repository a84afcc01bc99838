"""The errors a user meets: each is one line that says what is wrong, what was expected and what to type.

Which exit code an error has is decided here; where it is printed is left to the command line.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FinetuneError(Exception):
    """An error with a message meant for the person at the keyboard."""

    exit_code = 1


class ConfigError(FinetuneError):
    """A setting, a name or a path on the command line is wrong."""

    exit_code = 2


class DataError(FinetuneError):
    """The images or their labels are not what was declared."""

    exit_code = 2


class RunError(FinetuneError):
    """A run could not be done or continued."""


class MissingExtraError(ConfigError):
    """An optional package is needed for what was asked."""

    def __init__(self, purpose: str, extra: str) -> None:
        """Say what `purpose` needs the extra of the distribution named `extra`."""
        super().__init__(
            f"{purpose} needs an optional package. Install it with: pip install 'finetune-images[{extra}]'"
        )


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" with the choice nearest to `word`, or an empty string."""
    known = {choice.lower(): choice for choice in choices}
    swapped = [choice for choice in known if sorted(choice) == sorted(word.lower())]
    found = swapped or get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f" Did you mean '{known[found[0]]}'?" if found else ""
