"""finetune: transfer learning for image classification, with scores one can trust."""

__version__ = "0.1.0"
