"""The progress bar: what it says on a terminal, and that it says nothing elsewhere."""

import re
from io import StringIO
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from rich.console import Console
from torch.utils.data import DataLoader

from finetune.config.settings.phases import Phase
from finetune.config.settings.training_groups import Schedule
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import build_network
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.classifier import Classifier
from finetune.training.freezing import apply_phase
from finetune.training.losses import CrossEntropy
from finetune.training.optimizers import build_optimizer, parameter_groups
from finetune.training.schedules import build_scheduler

PHASE = Phase("probe", "head", epochs=2)


class MonitoredClassifier(Classifier):
    """A classifier that logs what it monitors, as the metrics callback does."""

    def on_validation_epoch_end(self) -> None:
        """Log a made value."""
        self.log("val/accuracy", torch.tensor(0.875 + self.current_epoch / 100))


class BrokenClassifier(MonitoredClassifier):
    """A classifier that fails while it trains."""

    def on_train_epoch_end(self) -> None:
        """Fail."""
        raise ArithmeticError("broken")


def train(bar: PhaseProgressBar, folder: Path, kind: type[Classifier] = MonitoredClassifier) -> None:
    """Train the head of a tiny network for two epochs of 5 batches of 4 images."""
    torch.manual_seed(0)
    network = build_network("test_resnet", num_classes=2, weights="none", head=HeadSpec(), image_size=32)
    apply_phase(network, PHASE)
    classifier = kind(
        network,
        PHASE,
        CrossEntropy(),
        build_optimizer=lambda moving: build_optimizer(
            "sgd", parameter_groups(moving, PHASE, lr=0.0, weight_decay=0.0), {}
        ),
        build_scheduler=lambda optimizer, steps: build_scheduler(optimizer, steps, settings_for(Schedule)),
    )
    samples = [
        {"image": torch.randn(3, 32, 32), "target": torch.tensor(i % 2), "valid": torch.tensor(True)} for i in range(20)
    ]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=PHASE.epochs,
        callbacks=[bar],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier, DataLoader(samples, batch_size=4), DataLoader(samples, batch_size=4))


def terminal(width: int = 100) -> Console:
    """Return a console that writes to memory like a terminal."""
    environment = {"TERM": "xterm"}  # whatever the tests run in
    return Console(
        file=StringIO(), force_terminal=True, force_interactive=True, width=width, color_system=None,
        _environ=environment,
    )  # fmt: skip


def written(bar: PhaseProgressBar) -> str:
    """Return all that was drawn, without control codes."""
    assert isinstance(bar.console.file, StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", bar.console.file.getvalue()).replace("\r", "\n")


@pytest.mark.parametrize("width", [80, 100])
def test_line_names_phase_epoch_loss_rate_and_monitored_value(tmp_path: Path, width: int) -> None:
    bar = PhaseProgressBar(terminal(width), refreshes_per_second=1e6)
    train(bar, tmp_path)
    last = [line for line in written(bar).splitlines() if line.strip()][-1]
    assert re.search(r"^probe 2/2 .*5/5 .*loss 0\.\d{3}  [\d,]+ images/s  val/accuracy 0\.8850 0:00:\d\d$", last), last
    assert len(last) <= width


def test_batches_between_two_refreshes_draw_nothing(tmp_path: Path) -> None:
    often = PhaseProgressBar(terminal(), refreshes_per_second=1e6)
    seldom = PhaseProgressBar(terminal(), refreshes_per_second=1e-3)
    train(often, tmp_path)
    train(seldom, tmp_path)
    # the first batch of each of the two epochs, not the other eight
    assert written(often).count("images/s") - written(seldom).count("images/s") == 8


def test_nothing_is_drawn_when_the_output_is_not_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = PhaseProgressBar()
    assert not bar.shown
    train(bar, tmp_path)
    assert "probe" not in capsys.readouterr().out


def test_failure_gives_the_screen_back(tmp_path: Path) -> None:
    bar = PhaseProgressBar(terminal())
    with pytest.raises(ArithmeticError, match="broken"):
        train(bar, tmp_path, BrokenClassifier)
    assert bar.progress is None
    assert isinstance(bar.console.file, StringIO)
    assert bar.console.file.getvalue().count("\x1b[?25h") == 1, "the cursor is visible again"
