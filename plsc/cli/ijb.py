"""IJB-B or IJB-C, 1:1: plsc ijb --features out/predictions --faces META/ijbc_face_tid_mid.txt --pairs PAIRS

PAIRS is ijbc_template_pair_label.txt. --features is a .npy file with a row for each line of --faces, a directory that
`plsc predict` wrote, or, with --checkpoint and --output, a folder of cropped and aligned images, which are matched by
their file names.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from plsc.cli.options import add_image_model, add_json, add_quiet, check_json, log_lines, print_json
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.terminal import print_stdout

if TYPE_CHECKING:
    import numpy as np

    from plsc.evaluation.ijb import IjbResult


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", metavar="PATH", required=True, help="features, or images for --checkpoint")
    parser.add_argument("--faces", metavar="FILE", required=True, help="lines of image, template and medium")
    parser.add_argument("--pairs", metavar="FILE", required=True, help="lines of template, template and 0 or 1")
    parser.add_argument("--scores", metavar="FILE", help="ijbc_name_5pts_score.txt: weight by the detector's scores")
    add_image_model(parser)
    add_json(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.cli.trained import embed
    from plsc.evaluation.ijb import evaluate_templates, read_faces, read_pairs, read_scores

    check_json(options)
    faces = read_faces(options.faces)
    scores = read_scores(options.scores, faces) if options.scores else None
    pairs = read_pairs(options.pairs)
    if options.features.endswith(".npy"):
        features = read_npy(options.features)
    else:
        with log_lines(options):
            features = in_order(*embed(options.features, options.checkpoint, options.output), faces.names)
    result = evaluate_templates(features, faces, pairs, scores)
    if not print_json(options, as_plain(result)):
        print_text(result)


def print_text(result: IjbResult) -> None:
    print_stdout(
        f"{result.num_templates:,} templates, {result.num_same:,} same and {result.num_different:,} different pairs"
    )
    for far, tar in result.tar_at_far.items():
        print_stdout(f"  TAR@FAR={far:g}: {'too few pairs' if tar is None else f'{100 * tar:.2f} %'}")
    print_stdout(f"  AUC {result.auc:.5f}, EER {result.eer:.5f}")


def read_npy(path: str) -> np.ndarray:
    """The array, memory-mapped. Raises DataError."""
    import numpy as np

    try:
        safe_open.open_bytes(path, safe_open.TENSORS).close()  # refuse what is not a regular file before reading it
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def in_order(features: np.ndarray, paths: list[str], names: list[str]) -> np.ndarray:
    """The rows of images `names`. Raises DataError for a name that no path or more than one ends in."""
    import numpy as np

    rows: dict[str, int] = {}
    for row, path in enumerate(paths):
        if rows.setdefault(os.path.basename(path), row) != row:
            raise DataError(f"{path}: another image has the same file name; IJB's images are matched by file name")
    missing = [name for name in names if name not in rows]
    if missing:
        raise DataError(f"{len(missing)} of {len(names)} images have no features, the first is {missing[0]}")
    order = np.array([rows[name] for name in names])
    return features if np.array_equal(order, np.arange(len(features))) else features[order]


def as_plain(result: IjbResult) -> dict:
    return {**vars(result), "tar_at_far": {f"{far:g}": tar for far, tar in result.tar_at_far.items()}}
