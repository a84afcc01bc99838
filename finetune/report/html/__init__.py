"""The page kit: blocks, figures as SVG, and the rendering of all of it into one file."""
