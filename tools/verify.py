"""Verify a trained net: python tools/verify.py --checkpoint output/run --output out -o data.dataset_dir=faces

--checkpoint is a checkpoint, the directory of a run (its newest checkpoint) or an exported model. The sets are
data.val_targets in data.dataset_dir; without -c the settings are those that it was trained with.
"""

from __future__ import annotations

from plsc.command_line import main

FILES = {
    "--json": ("json_file", "write all figures to this file"),
    "--html": ("html_file", "write a page to this file: figures, curves, the worst mistaken pairs as pictures"),
}

if __name__ == "__main__":
    main(__doc__, "test", {}, files=FILES)
