"""Pages that open without a network: what they are made of, how figures are drawn, how all of it becomes one file."""
