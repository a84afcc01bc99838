"""Ensembles: cross-validation, and finished runs combined into one network."""
