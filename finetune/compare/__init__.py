"""Whether one run is better than another, image by image."""
