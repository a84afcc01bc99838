"""Several models from one experiment: cross-validation, and networks that are joined."""
