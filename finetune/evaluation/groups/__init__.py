"""How well each group of images is served: scores per group, the gaps between groups, and whether chance makes them."""
