"""Two processes on the CPU (gloo): every strategy trains, ranks stay equal, and nothing is scored twice."""

import pytest
from ranks import run_ranks

WORKER = "distributed_worker.py"
STRATEGIES = ("full", "frozen", "lp_ft", "gradual", "partial", "lora", "bitfit")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What two processes report."""
    return run_ranks(WORKER, 2, tmp_path_factory.mktemp("two") / "ranks", STRATEGIES)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What one process reports of the same weights."""
    return run_ranks(WORKER, 1, tmp_path_factory.mktemp("one") / "ranks", STRATEGIES)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_keep_equal_weights_through_every_phase(two: dict[str, dict], strategy: str) -> None:
    digests = two[strategy]["digests"]
    assert digests, "no epoch was trained"
    assert all(first == second for first, second in digests)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_moves_weights_in_two_processes(two: dict[str, dict], strategy: str) -> None:
    assert two[strategy]["moved"] > 0
    assert two[strategy]["validated"] == 13


def test_two_processes_score_21_images_as_21(two: dict[str, dict]) -> None:
    assert two["scored"]["n"] == 21
    assert two["scored"]["rows"] == sorted(set(two["scored"]["rows"]))


def test_two_processes_score_like_one(one: dict[str, dict], two: dict[str, dict]) -> None:
    assert one["scored"]["rows"] == two["scored"]["rows"]
    assert one["scored"]["logits"] == pytest.approx(two["scored"]["logits"], abs=1e-5)
    assert one["scored"]["validation"] == pytest.approx(two["scored"]["validation"], abs=1e-5)


def test_two_processes_hand_out_the_features_of_a_sample_like_one(one: dict[str, dict], two: dict[str, dict]) -> None:
    assert one["scored"]["sampled"] == two["scored"]["sampled"] == one["scored"]["rows"][1::3]
    assert one["scored"]["features"] == pytest.approx(two["scored"]["features"], abs=1e-5)
