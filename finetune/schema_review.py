"""The keys of the verbs that look at finished runs and at data, as dataclasses that Hydra checks against.

It decides names and types, as `schema` does for everything else; defaults live in conf/.
"""

from typing import Any

# by the name of the root configuration
REVIEW_ROOTS: dict[str, Any] = {}
