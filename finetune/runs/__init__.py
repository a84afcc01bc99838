"""Run folders: the run, its history, what W&B records of it, and the folder of a sweep."""
