"""`python -m plsc ...` is `plsc ...`."""

from __future__ import annotations

import sys

from plsc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
