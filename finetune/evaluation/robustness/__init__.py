"""How well a run does on noisy, blurred, badly lit and badly stored images."""
