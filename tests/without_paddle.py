"""Make an interpreter that has what this one has, but for Paddle:  python -m tests.without_paddle DIRECTORY"""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

# No ImportError: code that does without Paddle where there is none, and a test that skips itself, must not hide it.
REFUSE = 'raise RuntimeError("Paddle is imported, and what needs it must not be among PLAIN in tests/parts.py")\n'


def make(directory: Path) -> str:
    """The path of the interpreter; its `import paddle` raises RuntimeError, in processes that it starts too."""
    venv.create(directory, clear=True, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)}))
    (packages / "paddle").mkdir()
    (packages / "paddle" / "__init__.py").write_text(REFUSE)
    (packages / "all.pth").write_text("".join(f"{path}\n" for path in sys.path if "site-packages" in Path(path).parts))
    return str(directory / "bin" / "python")


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
