"""Device slots: where the jobs of this machine run, one on each, and which variables keep them there."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.errors import ConfigError
from finetune.runtime.device import CORES, cores

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
# of OpenMP, MKL, OpenBLAS and numexpr; torch follows the first two
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
HINT = "Use auto, cpu, a number, or a list of GPUs such as pool.devices=[0,1]."


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time.

    Attributes:
        name: Unique, such as gpu:0,1 or cpu:0; jobs that share a GPU are told apart, as in gpu:0#2.
        environment: Variables of its jobs.
    """

    name: str
    environment: Mapping[str, str]


def build_slots(
    devices: object,
    *,
    devices_per_job: int = 1,
    jobs_per_device: int = 1,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Slot]:
    """Return the slots of this machine.

    Args:
        devices: auto for all GPUs, or one slot on the CPU where there is none; cpu; a number of GPUs, or of slots on
            the CPU where there is no GPU; or a list of GPUs, by their place among those that are visible or by UUID.
        devices_per_job: GPUs of each job.
        jobs_per_device: Jobs that share a slot's devices.
        threads: Of each job's libraries; None shares the cores evenly, unless the environment says how many.
        environment: Variables to read; None for this process's own.

    Raises:
        ConfigError: There are no such devices, or they cannot be shared out like this.
    """
    surroundings = os.environ if environment is None else environment
    if devices_per_job < 1:
        raise ConfigError(f"pool.devices_per_job={devices_per_job} is no number of GPUs. For the CPU: pool.devices=cpu")
    gpus = choose_gpus(devices, surroundings)
    if gpus:
        groups = grouped(gpus, devices_per_job)
    elif devices_per_job > 1:
        raise ConfigError(
            f"pool.devices_per_job={devices_per_job} needs GPUs, and none is used here. Use 1; a distributed run on "
            "the CPU is trainer=ddp trainer.accelerator=cpu trainer.devices=2 in one slot."
        )
    else:
        groups = [[] for _ in range(devices if isinstance(devices, int) else 1)]
    places = [(group, number) for group in groups for number in range(jobs_per_device)]
    names = [_name_of(group, number, place, jobs_per_device) for place, (group, number) in enumerate(places)]
    computing = computing_variables(len(places), threads, surroundings)
    hiding = {VISIBLE: ""} if devices == "cpu" else {}
    pinned = [{**hiding, **gpu_variables([gpus[name] for name in group], surroundings)} for group, _ in places]
    return [Slot(name, {**computing, **pins}) for name, pins in zip(names, pinned, strict=True)]


def choose_gpus(devices: object, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the GPUs that are used, by the name they are shown under, as CUDA is told of them; none means the CPU.

    Raises:
        ConfigError: They are not there.
    """
    if devices == "cpu":
        return {}
    visible = visible_gpus(environment)
    known = {str(place): name for place, name in enumerate(visible)}
    if devices == "auto":
        return known
    if isinstance(devices, int) and not isinstance(devices, bool):
        if devices < 1 or (visible and devices > len(visible)):
            raise ConfigError(f"pool.devices={devices} asks for what is not there ({there(visible)}). {HINT}")
        return dict(list(known.items())[:devices])
    if not isinstance(devices, Sequence) or isinstance(devices, str) or not devices:
        raise ConfigError(f"pool.devices={devices} is not understood. {HINT}")
    chosen = {str(name): known.get(str(name), str(name)) for name in devices}
    uuids = {name for name in chosen if name.startswith(("GPU-", "MIG-"))}
    numbered = bool(visible) and all(name.isdigit() for name in visible)  # then UUIDs of the same GPUs are not known
    usable = set(known) | (uuids if numbered else uuids & set(visible))
    unknown = [name for name in chosen if name not in usable]
    if unknown or len(chosen) < len(devices):
        raise ConfigError(
            f"pool.devices=[{','.join(map(str, devices))}] names GPUs twice or that are not there "
            f"({there(visible)}). {HINT}"
        )
    return chosen


def there(visible: Sequence[str]) -> str:
    """Return which GPUs are there, in words."""
    return f"there are {len(visible)} GPUs, from 0 to {len(visible) - 1}" if visible else "there is no GPU"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that a CUDA process would see, as numbers or UUIDs.

    CUDA_VISIBLE_DEVICES is followed as CUDA itself does: what stands after the first entry that is none is left out.
    """
    listed = environment.get(VISIBLE)
    if listed is None:
        return [str(number) for number in range(count_gpus())]
    gpus: list[str] = []
    for entry in (part.strip() for part in listed.split(",")):
        if not (entry.isdigit() or entry.startswith(("GPU-", "MIG-"))):
            break
        gpus.append(entry)
    return gpus


def count_gpus() -> int:
    """Return how many NVIDIA GPUs the driver knows; 0 where there is no driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    number = ctypes.c_uint(0)
    if library.nvmlInit_v2() != 0:
        return 0
    try:
        return number.value if library.nvmlDeviceGetCount_v2(ctypes.byref(number)) == 0 else 0
    finally:
        library.nvmlShutdown()


def grouped(gpus: Mapping[str, str], size: int) -> list[list[str]]:
    """Return the GPUs of each job.

    Raises:
        ConfigError: Some would be left over.
    """
    if len(gpus) % size:
        raise ConfigError(
            f"pool.devices_per_job={size} leaves {len(gpus) % size} of {len(gpus)} GPUs idle. Choose "
            f"{len(gpus) // size * size or size} of them with pool.devices, or another number per job."
        )
    names = list(gpus)
    return [names[first : first + size] for first in range(0, len(names), size)]


def _name_of(group: Sequence[str], number: int, place: int, jobs_per_device: int) -> str:
    """Return the name of a slot."""
    if not group:
        return f"cpu:{place}"
    return f"gpu:{','.join(group)}{f'#{number + 1}' if jobs_per_device > 1 else ''}"


def gpu_variables(group: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give a job its GPUs and no others; numbers count as nvidia-smi does."""
    if not group:
        return {}
    numbering = {} if VISIBLE in environment or ORDER in environment else {ORDER: "PCI_BUS_ID"}
    return {VISIBLE: ",".join(group), **numbering}


def computing_variables(places: int, threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep the jobs from taking each other's cores.

    A job that is alone has all of them, as the libraries do by themselves.
    """
    share = max(1, cores() // places)
    if threads is not None:
        return {CORES: str(max(threads, 1)), **dict.fromkeys(THREADS, str(threads))}
    if places == 1:
        return {}
    return {CORES: str(share), **{name: environment.get(name, str(share)) for name in THREADS}}
