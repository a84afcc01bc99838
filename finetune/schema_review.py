"""The keys of the verbs that look at finished runs and at data, as dataclasses that Hydra checks against.

It decides names and types, as `schema` does for everything else; defaults live in conf/.
"""

from dataclasses import dataclass
from typing import Any


@dataclass
class RunsConfig:
    """Keys of the root of the verb runs."""

    verb: str = "runs"
    runs: Any = "runs"
    run: str | None = None
    columns: Any = None
    filter: str | None = None
    sort: str | None = None
    limit: int | None = None
    output: str | None = None


# by the name of the root configuration
REVIEW_ROOTS: dict[str, Any] = {
    "runs": RunsConfig,
}
