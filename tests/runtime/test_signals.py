"""A run ends by whatever tells it to, in one way, and the processes that read images for it leave that to it."""

import os
import signal
from collections.abc import Iterator

import pytest
from configured import settings_for
from tiny import tiny_table

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageData
from finetune.data.transforms import InputSpec
from finetune.runtime.signals import ENDING, exit_on_signals
from finetune.training.run_lifecycle import ending_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put all handlers back."""
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [*ENDING, signal.SIGTERM])
def test_signals_exit_as_sigterm_does_and_only_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop, exit_on_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)  # said again while the run ends
    assert stop.value.code == 143
    assert signal.getsignal(number) == before


def test_signal_that_is_ignored_or_has_a_handler_stays_as_it_is() -> None:
    def own(number: int, frame: object) -> None:
        pass

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, own)
    with exit_on_signals():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) is own
        os.kill(os.getpid(), signal.SIGHUP)


def test_requeue_signal_of_slurm_is_left_to_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert signal.SIGUSR1 in ending_signals()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert set(ENDING) - set(ending_signals()) == {signal.SIGUSR1}


def test_workers_go_on_reading_when_the_whole_group_is_told_to_end() -> None:
    spec = InputSpec(1, 8, 8, (0.5,), (0.5,), "bilinear", 1.0)
    images = ImageData(tiny_table(train=64, val=8, test=8), spec, settings_for(Augment), batch_size=1, workers=1)
    with exit_on_signals():
        batches = iter(images.loader("train", augmented=True))
        first = next(batches)
        for number in ENDING:
            os.kill(batches._workers[0].pid, number)  # type: ignore[union-attr]
        rows = [int(batch["row"]) for batch in (first, *batches)]
    assert sorted(rows) == list(range(64))
