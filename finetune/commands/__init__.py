"""Commands: one module for each word after `finetune`, and what all runs share at their start and at their end."""
