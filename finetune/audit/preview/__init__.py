"""Preview: what a network is shown in training and in evaluation."""
