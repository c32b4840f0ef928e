"""The package. Extras choose the Paddle wheel, because pip cannot: `pip install ".[cpu]"`, or cpu26, gpu."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "plsc/version.py").read_text(encoding="utf-8")).group(1)
EXTRAS = runpy.run_path(str(ROOT / "plsc/extras.py"))["EXTRAS"]

setup(
    # Not plsc: in the package registry that is another project, which pip would install instead of this one.
    name="large-scale-classification",
    version=VERSION,
    description="Large-scale classification on PaddlePaddle: ArcFace, CosFace, Partial FC; import plsc",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="PaddlePaddle face-recognition metric-learning ArcFace CosFace Partial-FC classification",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    # configs/ stays at the top level, where users look for it; a wheel holds it as plsc/configs.
    packages=[*find_packages(include=["plsc", "plsc.*"]), "plsc.configs"],
    package_dir={"plsc.configs": "configs"},
    # *.cc: compiled where they run
    package_data={"plsc.backend": ["*.cc"], "plsc.rows": ["*.cc"], "plsc.configs": ["*.yaml"]},
    entry_points={"console_scripts": ["plsc = plsc.cli.main:main"]},
    python_requires=">=3.9",
    install_requires=["numpy>=1.22", "pillow>=9.1", "pyyaml>=5.4"],
    extras_require={name: list(packages) for name, packages in EXTRAS.items()},
)
