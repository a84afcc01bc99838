"""Device slots: every GPU is used, none twice but where asked, and what the user has set is respected."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError
from finetune.search.pools.slots import THREADS, VISIBLE, build_slots, visible_gpus

NO_GPU = {VISIBLE: ""}
CORES = len(os.sched_getaffinity(0))

gpu_names = st.one_of(
    st.integers(1, 16).map(lambda number: [str(3 * place) for place in range(number)]),
    st.integers(1, 8).map(lambda number: [f"GPU-{place}-ab" for place in range(number)]),
)


@given(gpu_names, st.integers(1, 4), st.integers(1, 3))
def test_every_gpu_is_in_as_many_slots_as_jobs_share_it(names: list[str], per_job: int, sharing: int) -> None:
    environment = {VISIBLE: ",".join(names)}
    options = {"devices_per_job": per_job, "jobs_per_device": sharing, "environment": environment}
    if len(names) % per_job:
        with pytest.raises(ConfigError, match="idle"):
            build_slots("auto", **options)
        return
    slots = build_slots("auto", **options)
    used = [name for slot in slots for name in slot.environment[VISIBLE].split(",")]
    assert sorted(used) == sorted(names * sharing)
    assert len({slot.name for slot in slots}) == len(slots)
    assert all(len(slot.environment[VISIBLE].split(",")) == per_job for slot in slots)


@given(st.integers(1, 20), st.integers(1, 3))
def test_cpu_slots_share_the_cores_evenly(number: int, sharing: int) -> None:
    slots = build_slots(number, jobs_per_device=sharing, environment=NO_GPU)
    assert [slot.name for slot in slots] == [f"cpu:{place}" for place in range(number * sharing)]
    threads = {slot.environment.get(name) for slot in slots for name in THREADS}
    assert threads == ({None} if len(slots) == 1 else {str(max(1, CORES // len(slots)))})


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0,1", ["0", "1"]),
        (" 2 , 0 ", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("GPU-8932f937,MIG-1/2/0", ["GPU-8932f937", "MIG-1/2/0"]),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_see(listed: str, expected: list[str]) -> None:
    assert visible_gpus({VISIBLE: listed}) == expected


def test_numbers_count_the_visible_gpus_and_uuids_are_taken_as_they_are() -> None:
    environment = {VISIBLE: "4,5,6"}
    assert [slot.environment[VISIBLE] for slot in build_slots([0, 2], environment=environment)] == ["4", "6"]
    assert [slot.environment[VISIBLE] for slot in build_slots(2, environment=environment)] == ["4", "5"]
    (slot,) = build_slots(["GPU-ab12"], environment=environment)
    assert (slot.name, slot.environment[VISIBLE]) == ("gpu:GPU-ab12", "GPU-ab12")


def test_jobs_that_share_a_gpu_are_told_apart_and_get_their_part_of_the_cores() -> None:
    slots = build_slots([1], jobs_per_device=2, environment={VISIBLE: "0,1"})
    assert [slot.name for slot in slots] == ["gpu:1#1", "gpu:1#2"]
    assert {slot.environment["OMP_NUM_THREADS"] for slot in slots} == {str(max(1, CORES // 2))}


def test_cpu_slots_beside_gpus_hide_them() -> None:
    (slot,) = build_slots("cpu", environment={VISIBLE: "0,1"})
    assert (slot.name, slot.environment[VISIBLE]) == ("cpu:0", "")


def test_the_number_of_threads_is_the_typed_one_then_the_one_of_the_environment() -> None:
    own = {**NO_GPU, "OMP_NUM_THREADS": "7"}
    assert build_slots(2, environment=own)[0].environment["OMP_NUM_THREADS"] == "7"
    assert build_slots(2, threads=3, environment=own)[0].environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("devices", "visible", "options", "told"),
    [
        ([0], "", {}, "there is no GPU"),
        (3, "0,1", {}, "2 GPUs"),
        (0, "", {}, "is not there"),
        ([0, 0], "0,1", {}, "twice"),
        ([5], "0,1", {}, r"\[5\]"),
        (["GPU-x"], "GPU-a", {}, "GPU-x"),
        (["GPU-x"], "", {}, "GPU-x"),
        ("gpus", "0", {}, "Use auto"),
        (True, "0", {}, "Use auto"),
        ([], "0", {}, "Use auto"),
        ("auto", "0", {"devices_per_job": 0}, "pool.devices=cpu"),
        ("auto", "", {"devices_per_job": 2}, "needs GPUs"),
        ("auto", "0,1,2", {"devices_per_job": 2}, "1 of 3 GPUs idle"),
    ],
)
def test_devices_that_are_not_there_are_refused(devices: object, visible: str, options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_slots(devices, environment={VISIBLE: visible}, **options)


def test_slots_are_found_without_importing_torch() -> None:
    imported = "import sys; from finetune.search.pools.slots import build_slots"
    code = f"{imported}; build_slots('auto'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
