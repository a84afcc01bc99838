"""How far a run has come, as its history says."""

from pathlib import Path

import pytest
from configured import train_settings

from finetune.config.compose import register
from finetune.runs.history import RunHistory
from finetune.search.multirun.grid import plan_jobs
from finetune.search.multirun.job_progress import JobProgress, ProgressReader, total_epochs

register()


def test_progress_follows_the_history_as_it_grows(tmp_path: Path) -> None:
    reader = ProgressReader(tmp_path, "val/loss", "min")
    assert reader.read() == JobProgress()
    history = RunHistory(tmp_path / "metrics.csv")
    history.append({"step": 1, "epoch": 0, "phase": "probe", "train/loss_step": 3.0})
    assert reader.read() == JobProgress()
    for epoch, value in enumerate((0.5, 0.25, float("nan"), 0.75)):
        history.append({"step": epoch + 2, "epoch": epoch, "phase": "probe", "val/loss": value})
    assert reader.read() == JobProgress(4, 0.75, 0.25)
    assert ProgressReader(tmp_path, "val/loss", "max").read().best == 0.75


def test_a_line_that_is_just_being_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,phase,val/accuracy\n1,0,full,0.5\n2,1,full,0.7")
    assert ProgressReader(tmp_path, "val/accuracy", "max").read() == JobProgress(1, 0.5, 0.5)


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        (["strategy=lp_ft", "strategy.head_epochs=4", "strategy.epochs=3"], 7),
        (["strategy=frozen", "strategy.epochs=9"], 9),
        (["strategy=frozen", "head=logistic"], 1),
        (["strategy=lp_ft", "head=logistic", "strategy.epochs=3"], 4),
        (["strategy=full", "strategy.epochs=3", "head.l2=0.1"], 3),
    ],
)
def test_epochs_of_a_run_are_those_of_its_phases(overrides: list[str], epochs: int) -> None:
    settings = train_settings(*overrides)
    assert total_epochs(settings.strategy, settings.head) == epochs


def test_what_trains_nothing_has_no_epochs() -> None:
    (plan,) = plan_jobs("predict", None, ["input=x"])
    assert plan.epochs is None
