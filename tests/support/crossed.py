"""Words for small runs of the photos of three digits."""

SMALL = [
    "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
    "logger=none", "bootstrap=20", "report=false", "explain.images=0", "data=folder", "data.horizontal_flip=0",
]  # fmt: skip
