"""What is averaged over the epochs of a phase is the mean that its definition says."""

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from finetune.errors import ConfigError
from finetune.training.callbacks.snapshots import Snapshots, cycles_by
from finetune.training.callbacks.swa import StochasticWeightAveraging


class Counter(pl.LightningModule):
    """A weight that is 1 after the first step, 2 after the second, and so on."""

    def __init__(self) -> None:
        """Begin at 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight.sum()  # a step of SGD with rate 1 adds 1

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(float(self.weight))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize(("start", "wanted"), [(0.5, [3, 6, 9, 10.5]), (0.0, [3, 4.5, 6, 7.5])])
def test_the_mean_is_that_of_the_weights_that_end_the_later_epochs(start: float, wanted: list[float]) -> None:
    module = Counter()
    batches = DataLoader(TensorDataset(torch.zeros(3)), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=4, callbacks=[StochasticWeightAveraging(start)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, batches, DataLoader(TensorDataset(torch.zeros(1))))
    assert module.seen == pytest.approx(wanted)  # what is validated after each epoch: steps 3, 6, 9 and 12 end them
    assert float(module.weight) == pytest.approx(wanted[-1])


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="callbacks.swa.start=1"):
        StochasticWeightAveraging(1.0)
    with pytest.raises(ConfigError, match=r"schedule.cycles=3"):
        Snapshots(1)


def test_cycles_end_as_often_as_there_are_cycles() -> None:
    ends = [done for done in range(1, 11) if cycles_by(done, 10, 3) != cycles_by(done - 1, 10, 3)]
    assert len(ends) == 3 and ends[-1] == 10
