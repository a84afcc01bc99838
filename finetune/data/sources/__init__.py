"""Where images and labels come from: class folders, a table, sequences of frames, the bundled digits, or `sources.hub`.

Sources decide which files belong to a data set, their ids, labels and given splits; missing splits are made and files
are checked elsewhere.
"""

from finetune.data.image_stores import image_suffixes
from finetune.data.sources.digits import digits
from finetune.data.sources.folders import folder
from finetune.data.sources.frames import sequence_table, sequences
from finetune.data.sources.tables import csv

__all__ = ["csv", "digits", "folder", "image_suffixes", "sequence_table", "sequences"]
