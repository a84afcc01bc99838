"""Settings: one frozen dataclass for each group of conf/ and for each command; defaults stand in conf/ alone."""
