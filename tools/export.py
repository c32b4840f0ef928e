"""Export a trained net: python tools/export.py --checkpoint output/run --output exported -o export.format=both

The model goes to OUTPUT/inference, where plsc.Predictor reads it. Without -c the settings are those that the checkpoint
was trained with. The checkpoint is only read.
"""

from __future__ import annotations

from plsc.command_line import main

if __name__ == "__main__":
    main(__doc__, "convert_for_prediction", {"--images": ("export.images", "pictures to compare it on")})
