"""Cross-validation: folds in one process or in a pool, and what they say together."""
