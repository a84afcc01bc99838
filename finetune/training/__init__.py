"""Training: steps, losses, optimizers, schedules and the train verb."""
