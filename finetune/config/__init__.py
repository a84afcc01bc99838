"""Configuration: schemas, composition, validation, and errors of Hydra's in one line."""
