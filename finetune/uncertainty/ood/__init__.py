"""Out-of-distribution detection: how unlike the training images an image is, by a density of features or by logits."""
