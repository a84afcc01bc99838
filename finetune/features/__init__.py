"""Features of a frozen backbone: computed once, cached, and served as batches."""
