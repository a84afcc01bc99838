"""Lightning's logger for W&B, whose failures cost no run."""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger


class GuardedWandbLogger(WandbLogger):
    """Hands metrics to W&B through a guard that says what is lost."""

    def __init__(self, attempt: Callable[[str, Callable[[], object]], None], **options: Any) -> None:
        """Log through `attempt`, which is told what is logged and how; other options are Lightning's."""
        super().__init__(**options)
        self.attempt = attempt

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch's values."""
        self.attempt("metrics", lambda: WandbLogger.log_metrics(self, metrics, step))
