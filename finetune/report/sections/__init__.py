"""The sections of a run's page, one file for each topic."""
