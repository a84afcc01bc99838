"""Log filters: what Lightning and its libraries say that is no news to the user of a run."""

import logging
import warnings

# each is either by design here or about a default that is set explicitly
WARNINGS = (
    r".*module\(s\) in eval mode at the start of training.*",  # frozen layers rest by design
    r".*custom batch sampler.*",  # ours returns every image exactly once
    r".*does not have many workers.*",  # the number of workers is resolved and stated
    r".*is smaller than the logging interval.*",  # a row is written at each epoch's end as well
    r".*isinstance\(treespec, LeafSpec\).*",  # between Lightning and torch
    r".*AMP with fp16 is not supported on CPU.*",  # an error of ours follows
    r".*Average precision score for one or more classes was `nan`.*",  # classes without images are left out on purpose
    r".*No positive samples (in|found in) targets?.*",
    r".*No negative samples in targets.*",
    r".*It is recommended to use `self\.log.*sync_dist=True.*",  # the values are those of all ranks already
    r".*`weights_only` was not set.*",
    r".*`LightningModule.configure_optimizers` returned `None`.*",  # a head that is solved needs no optimizer
    r".*have no `val_dataloader`.*",  # a benchmark times training alone
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*You have overridden `on_after_batch_transfer`.*",
    r".*The `srun` command is available.*",
)
LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


class _NotNews(logging.Filter):
    """Lets warnings and errors pass, but not what Lightning says of itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is let through."""
        return record.levelno > logging.WARNING or (
            record.levelno == logging.WARNING and "weights_only" not in record.getMessage()
        )


def quieten() -> None:
    """Leave out messages that would only distract; call it once, before a trainer is made."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    # each try of a download that fails; the error after the last one says it all
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    for name in LOGGERS:
        children = [key for key in logging.root.manager.loggerDict if key.startswith(f"{name}.")]
        for logger in map(logging.getLogger, [name, *children]):
            logger.addFilter(_NotNews())
            for handler in logger.handlers:
                handler.addFilter(_NotNews())
