"""Why a network says what it says: maps over the image, and the training images that are most like it."""
