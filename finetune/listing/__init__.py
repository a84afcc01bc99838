"""Listing: runs, and the evaluations of a run, as tables that are filtered and sorted by whatever is known of them."""
