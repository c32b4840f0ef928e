"""The 1:1 template protocol of IJB-B and IJB-C: each template is a set of images of a person."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np

from plsc.errors import DataError
from plsc.evaluation.embeddings import check_embeddings, normalize
from plsc.evaluation.roc import auc, eer, roc_curve, tar_at_far
from plsc.evaluation.verification import FARS
from plsc.files import safe_open

BLOCK = 1 << 15  # pairs per block


@dataclass(frozen=True)
class Faces:
    """M images: their file names, and int64 [M] the template and the medium (a photo, or all frames of a video)."""

    names: list[str]
    template: np.ndarray
    medium: np.ndarray


@dataclass(frozen=True)
class TemplatePairs:
    """P pairs of templates: int64 [P] first and second, bool [P] whether both show the same person."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class IjbResult:
    """Rates in [0, 1]. tar_at_far: {far: tar}; None with fewer than 1/far different pairs."""

    tar_at_far: dict[float, float | None]
    auc: float
    eer: float
    num_templates: int
    num_same: int
    num_different: int


def read_faces(path: str | os.PathLike[str]) -> Faces:
    """Read `ijbc_face_tid_mid.txt`, one `name template medium` per line. Raises DataError that names a bad line."""
    names, numbers = [], []
    for line, fields in enumerate(_read_fields(path), 1):
        if len(fields) != 3 or not _integers(fields[1:]):
            raise DataError(
                f"{os.fspath(path)}:{line}: {_quote(fields)}; expected name, template number and medium number"
            )
        names.append(fields[0])
        numbers.append((int(fields[1]), int(fields[2])))
    template, medium = np.array(numbers, np.int64).T
    return Faces(names, template, medium)


def read_pairs(path: str | os.PathLike[str]) -> TemplatePairs:
    """Read `ijbc_template_pair_label.txt`, one `template template 0|1` per line; blank lines are ignored.

    Raises DataError that names the first bad line.
    """
    try:
        with safe_open.open_text(path, safe_open.LIST, "utf-8-sig") as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # for an empty file, and for 1.0 read as 1
            table = np.loadtxt(file, dtype=np.int64, comments=None, ndmin=2)
        good = table.shape[1:] == (3,) and len(table) > 0 and bool(np.isin(table[:, 2], (0, 1)).all())
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError, Warning):
        good = False
    if not good:
        for line, fields in enumerate(_read_fields(path), 1):
            if len(fields) != 3 or not _integers(fields) or fields[2] not in ("0", "1"):
                raise DataError(f"{os.fspath(path)}:{line}: {_quote(fields)}; expected two template numbers and 0 or 1")
        raise DataError(f"{os.fspath(path)}: is not a list of `template template 0|1`")
    return TemplatePairs(table[:, 0], table[:, 1], table[:, 2] == 1)


def read_scores(path: str | os.PathLike[str], faces: Faces) -> np.ndarray:
    """Read the detector's scores, float64 [M], from `ijbc_name_5pts_score.txt`: name, ten coordinates, score per line.

    Raises DataError that names the first bad line, also if the images or their order differ from ``faces``.
    """
    scores = []
    for line, fields in enumerate(_read_fields(path), 1):
        expected = faces.names[line - 1] if line <= len(faces.names) else "no more lines"
        try:
            score = float(fields[11]) if len(fields) == 12 and fields[0] == expected else np.nan
        except ValueError:
            score = np.nan
        if not np.isfinite(score):
            raise DataError(
                f"{os.fspath(path)}:{line}: {_quote(fields)}; expected {expected!r}, ten coordinates and a score"
            )
        scores.append(score)
    if len(scores) != len(faces.names):
        raise DataError(f"{os.fspath(path)}: {len(scores)} scores for {len(faces.names)} images")
    return np.array(scores)


def build_templates(
    features: np.ndarray, faces: Faces, scores: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Aggregate features into templates: (template numbers, ascending int64 [T]; float64 [T, E] of length 1).

    features [M, E]: the model's outputs, not normalized, so that longer ones weigh more; row i belongs to image i. With
    scores, each is first multiplied by its score. Features are averaged over each medium, then summed over the media of
    the template, and the sum is divided by its length (zero stays zero).

    Raises DataError for wrong shapes and for values that are not finite.
    """
    features = check_embeddings(features, "features")
    if len(features) != len(faces.names) or (scores is not None and len(scores) != len(features)):
        raise DataError(f"IJB: {len(features)} features for {len(faces.names)} images; expected one feature per line")
    order = np.lexsort((faces.medium, faces.template))
    numbers, starts = np.unique(faces.template[order], return_index=True)
    sums = np.zeros((len(numbers), features.shape[1]))
    for place, rows in enumerate(np.split(order, starts[1:])):
        wide = np.asarray(features[rows], np.float64)
        if scores is not None:
            wide = wide * scores[rows, None]
        _, media = np.unique(faces.medium[rows], return_index=True)
        counts = np.diff(np.append(media, len(rows)))
        sums[place] = (np.add.reduceat(wide, media, axis=0) / counts[:, None]).sum(axis=0)
    return numbers, normalize(sums)


def evaluate_templates(
    features: np.ndarray, faces: Faces, pairs: TemplatePairs, scores: np.ndarray | None = None
) -> IjbResult:
    """Compute TAR at FAR, AUC and EER over all pairs of templates, by cosine.

    Raises DataError as ``build_templates`` does, for a pair of an unknown template, and if all pairs are of one kind.
    """
    numbers, units = build_templates(features, faces, scores)
    similarity = np.empty(len(pairs.same))
    first, second = (_rows_of(numbers, side) for side in (pairs.first, pairs.second))
    for start in range(0, len(similarity), BLOCK):
        rows = slice(start, start + BLOCK)
        similarity[rows] = np.einsum("pe,pe->p", units[first[rows]], units[second[rows]])
    roc = roc_curve(similarity, pairs.same)
    return IjbResult(tar_at_far(roc, FARS), auc(roc), eer(roc), len(numbers), roc.num_same, roc.num_different)


def _rows_of(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    missing = np.flatnonzero(numbers[places] != wanted)
    if len(missing):
        raise DataError(
            f"IJB: pair {missing[0] + 1} names template {wanted[missing[0]]}, which has no images "
            f"({len(missing):,} such pairs)"
        )
    return places


def _read_fields(path: str | os.PathLike[str]) -> list[list[str]]:
    """The fields of each line, without blank lines at the end. Raises DataError for an empty file."""
    try:
        with safe_open.open_text(path, safe_open.LIST, "utf-8-sig", "surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{os.fspath(path)}: is empty")
    return lines


def _integers(fields: list[str]) -> bool:
    return all(field.isascii() and field.isdigit() and len(field) < 19 for field in fields)


def _quote(fields: list[str]) -> str:
    return ascii(" ".join(fields)[:80])
