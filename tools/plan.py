"""What a training run will need in memory: python tools/plan.py -c configs/x.yaml --ranks 8 --memory-gb 32

The same as `plsc plan`.
"""

from __future__ import annotations

import sys

from plsc.command_line import console

if __name__ == "__main__":
    console(["plan", *sys.argv[1:]])
