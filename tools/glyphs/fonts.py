"""The fonts that pip installs: their files, designs and faces."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from plsc.errors import DataError


@dataclass(frozen=True)
class Face:
    """One face of one design. `code` goes into the random keys: never reuse or change one."""

    code: int
    name: str
    design: str
    package: str
    file_name: str
    index: int
    family: str
    variable: bool


_NOTO = ("manimgx-fonts-cjk", "NotoSansCJK-VF.otf.ttc")
FACES = (
    Face(0, "sans-jp", "sans", *_NOTO, 0, "Noto Sans CJK JP", True),
    Face(1, "sans-kr", "sans", *_NOTO, 1, "Noto Sans CJK KR", True),
    Face(2, "sans-sc", "sans", *_NOTO, 2, "Noto Sans CJK SC", True),
    Face(3, "sans-tc", "sans", *_NOTO, 3, "Noto Sans CJK TC", True),
    Face(4, "sans-hk", "sans", *_NOTO, 4, "Noto Sans CJK HK", True),
    Face(5, "microhei", "microhei", "paperang-p2-fonts-cjk", "wqy-microhei.ttc", 0, "WenQuanYi Micro Hei", False),
    Face(6, "serif", "serif", "pylopdf-fonts-zh-cn", "NotoSerifSC-Regular.otf", 0, "Noto Serif SC", False),
)
DESIGNS = tuple(dict.fromkeys(face.design for face in FACES))
WEIGHT_RANGE = (100.0, 900.0)
REGULAR_WEIGHT = 400.0
# No font may map a noncharacter (Unicode, section 23.7), so this draws the "missing" box of every face.
_NO_CHARACTER = "\uffff"


def faces_of(designs: tuple[str, ...]) -> list[list[Face]]:
    """The faces of each design, in the order of `designs`."""
    return [[face for face in FACES if face.design == design] for design in designs]


@cache
def font_path(face: Face) -> str:
    """Path of the font file, found from the package's list of files without importing the package."""
    try:
        files = importlib.metadata.files(face.package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = file.locate()
        if file.name == face.file_name and path.is_file():
            return str(path)
    raise DataError(f"font {face.file_name} of design '{face.design}' is not installed: pip install {face.package}")


@cache
def open_face(face: Face, em: int) -> ImageFont.FreeTypeFont:
    """The face at `em` pixels to the em square. Opened once per process."""
    path = font_path(face)
    try:
        font = ImageFont.truetype(path, em, index=face.index, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(
            f"font {path} cannot be opened ({error}): pip install --force-reinstall {face.package}"
        ) from None
    if font.getname()[0] != face.family:
        raise DataError(
            f"font {path} entry {face.index} is '{font.getname()[0]}', not '{face.family}': "
            f"this release of {face.package} is not supported"
        )
    return font


def draw_character(face: Face, character: str, em: int, canvas: int, weight: float = REGULAR_WEIGHT) -> Image.Image:
    """A `canvas` x `canvas` image, ink 255 on 0, with the em square in the middle."""
    font = open_face(face, em)
    if face.variable:
        font.set_variation_by_axes([weight])
    image = Image.new("L", (canvas, canvas))
    left = (canvas - em) / 2
    # CJK fonts put the bottom of the em square 0.12 em below the baseline.
    ImageDraw.Draw(image).text((left, left + 0.88 * em), character, font=font, fill=255, anchor="ls")
    return image


def digests(character: str, faces: list[Face], em: int = 64) -> list[bytes]:
    """What each face draws for the character, as a digest; b"" where the face has no such character.

    Equal digests of two characters in one face mean that they share a glyph there.
    """
    result = []
    for face in faces:
        drawn = _digest(face, character, em)
        result.append(b"" if drawn == _missing(face, em) else drawn)
    return result


@cache
def _missing(face: Face, em: int) -> bytes:
    return _digest(face, _NO_CHARACTER, em)


def _digest(face: Face, character: str, em: int) -> bytes:
    image = draw_character(face, character, em, em + em // 4)
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
