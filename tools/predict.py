"""Features of pictures: python tools/predict.py --checkpoint exported/inference --images photos --output out

OUTPUT/predictions holds features.npy, pictures.csv (row, path) in the same order. A run that was stopped goes on where
it was. --checkpoint is a checkpoint, the directory of a run (its newest checkpoint) or an exported model; without -c
the settings are those that it was trained with.
"""

from __future__ import annotations

from plsc.command_line import main

if __name__ == "__main__":
    main(__doc__, "predict", {"--images": ("predict.images", "a folder, or a list with a path a line")})
