"""Of how many members a network consists, for tests of ensembles."""

from finetune.models.ensemble_network import JoinedHead
from finetune.models.network import Network


def count_members(network: Network) -> int:
    """Return of how many members a network consists; 1 for one that is no ensemble."""
    head = network.head[0]
    return len(head.heads) if isinstance(head, JoinedHead) else 1
