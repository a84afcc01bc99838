"""How the threads of a computation wait for each other: asleep, so that they leave the cores to whoever has work."""

from collections.abc import MutableMapping

POLICY = "OMP_WAIT_POLICY"
# other ways to say it, which are left to whoever used them
_OTHERS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def set_openmp_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Ask OpenMP, which reads the environment when torch is loaded, not to let waiting threads spin.

    A network's pass waits hundreds of times for all threads. Where another process uses one of the cores, a thread that
    spins keeps the one it waits for from running, and training becomes several times slower. Where the cores are free,
    no difference was measured.
    """
    if not any(environment.get(name) for name in (POLICY, *_OTHERS)):
        environment[POLICY] = "PASSIVE"
