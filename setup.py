"""The package. Extras choose the Paddle wheel, because pip cannot: `pip install ".[cpu]"`, or cpu26, gpu."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "plsc/version.py").read_text(encoding="utf-8")).group(1)

# Paddle 2.6.2 needs both and does not say so: with protobuf 7 fleet fails ("FieldDescriptor has no attribute 'label'"),
# and `import paddle` imports setuptools, which a virtual environment of Python 3.12 does not have.
PADDLE_26_NEEDS = ["protobuf>=4.25,<7", "setuptools"]

FONTS = ["manimgx-fonts-cjk==2026.9.26.post1", "paperang-p2-fonts-cjk==0.1.0"]  # another release draws other pictures
REPORT = ["matplotlib>=3.5"]
REMOTE = ["fsspec>=2023.1", "s3fs>=2023.1"]
TEST = ["pytest>=8", "pytest-xdist>=3.5", "ruff", "safetensors", "scikit-learn"]
S3_SERVER = ["moto[s3]>=5", "flask>=2.2", "flask-cors>=3"]  # what of moto[server] the tests need

# paddle2onnx reads the program as one Paddle writes it: 1.3.1 that of 2.6, 2.1.0 that of 3.x.
ONNX = ["paddle2onnx==2.1.0", "onnxruntime>=1.15"]
ONNX_26 = ["paddle2onnx==1.3.1", "onnxruntime>=1.15", *PADDLE_26_NEEDS]

setup(
    name="plsc",
    version=VERSION,
    description="Large-scale classification (ArcFace, CosFace, Partial FC) on PaddlePaddle",
    license="Apache-2.0",
    packages=find_packages(include=["plsc", "plsc.*"]),
    package_data={"plsc.rows": ["*.cc"]},  # compiled where they run, see plsc/backend/compiler.py
    entry_points={"console_scripts": ["plsc = plsc.cli.main:main"]},
    python_requires=">=3.9",
    install_requires=["numpy>=1.22", "pillow>=9.1", "pyyaml>=5.4"],
    extras_require={
        "cpu": ["paddlepaddle==3.3.1"],
        "cpu26": ["paddlepaddle==2.6.2", *PADDLE_26_NEEDS],
        # The last release in the package registry. Its kernels are for compute capability 6.1 to 8.6; newer cards
        # (Ada, Hopper) need Paddle 3.x from Paddle's own channel, installed by hand, and then plsc without an extra.
        "gpu": ["paddlepaddle-gpu==2.6.2", *PADDLE_26_NEEDS],
        "onnx": ONNX,
        "onnx26": ONNX_26,
        "remote": REMOTE,
        "report": REPORT,
        "fonts": FONTS,
        "test": [*TEST, *S3_SERVER, *REMOTE, *REPORT, *FONTS],
    },
)
