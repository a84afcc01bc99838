"""Training: phases, freezing, the Lightning module, losses, optimizers, schedules."""
