"""Sequences of frames: a row of the table is a sequence, and its frames are images like others."""
