"""The table of runs: filtered and sorted by whatever is known of them."""
