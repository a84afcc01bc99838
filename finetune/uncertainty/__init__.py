"""Uncertainty: temperature scaling, conformal prediction sets, selective prediction and out-of-distribution scores."""
