"""Inference of a combined network on a run's own images."""

from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.config.resolve import stored_settings
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.images import Vocabulary, own_images
from finetune.evaluation.inference import NetworkOutputs, Predictor
from finetune.evaluation.rerun_settings import InferenceSettings
from finetune.models.network import Network
from finetune.runs.run import Run


@dataclass(frozen=True)
class Runner:
    """Passes a run's images through networks, as evaluations of the run do.

    Attributes:
        run: Whose images.
        vocabulary: The labels.
        settings: How.
    """

    run: Run
    vocabulary: Vocabulary
    settings: InferenceSettings

    def images(self, network: Network, split: str) -> ImageData:
        """Return the batches of the run's own images of a split as a network wants them."""
        table = own_images(self.run, stored_settings(self.run.config).data.source, split, self.vocabulary).table
        return self.settings.images(table, network)

    def outputs(self, network: Network, split: str) -> tuple[ImageTable, NetworkOutputs]:
        """Return the images of a split, and what a network says of them."""
        images = self.images(network, split)
        found = Predictor(network, self.settings.device_pass).split(images, split, self.settings.views)
        network.cpu()
        return images.table, found

    @torch.no_grad()
    def refresh_norms(self, network: Network) -> None:
        """Give BatchNorm layers the statistics that the training images have in a network of averaged weights.

        Source: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, section 3.2.
        """
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        images = self.images(network, "train")
        device = self.settings.device_pass.device
        network.to(device).eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # the mean over all batches
        for batch in images.view_loader("train", 0):
            frames = (batch["frames"],) if "frames" in batch else ()
            network(batch["image"].to(device).contiguous(memory_format=torch.channels_last), *frames)
        network.eval().cpu()
