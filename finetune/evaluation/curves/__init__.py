"""What lies behind the scores: matrices, curves, gains, thresholds and single errors, as plain arrays."""
