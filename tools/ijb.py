"""IJB-B or IJB-C, 1:1: python tools/ijb.py --features out/predictions --faces META/ijbc_face_tid_mid.txt --pairs PAIRS

PAIRS is ijbc_template_pair_label.txt. --features is a .npy file with a row for each line of --faces, a directory that
tools/predict.py wrote, or with --checkpoint and --output a folder of pictures, cut out and aligned; the pictures are
then found by their file names.
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np

from plsc.command_line import embed
from plsc.errors import DataError
from plsc.evaluation.ijb import IjbResult, judge, read_faces, read_pairs, read_scores
from plsc.evaluation.output_files import check_place, write_text
from plsc.parallel.excepthook import install_excepthook


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and report. A PlscError ends the process with one line and status 1."""
    install_excepthook()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", metavar="PATH", required=True, help="features, or pictures for --checkpoint")
    parser.add_argument("--faces", metavar="FILE", required=True, help="picture, template and medium a line")
    parser.add_argument("--pairs", metavar="FILE", required=True, help="template, template and 0 or 1 a line")
    parser.add_argument("--scores", metavar="FILE", help="ijbc_name_5pts_score.txt: weigh by the detector's scores")
    parser.add_argument("--checkpoint", metavar="DIR", help="the net, for a folder of pictures")
    parser.add_argument("--output", metavar="DIR", help="where the features of pictures go")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    if options.json:
        check_place(options.json, "--json")
    faces = read_faces(options.faces)
    scores = read_scores(options.scores, faces) if options.scores else None
    pairs = read_pairs(options.pairs)
    if options.features.endswith(".npy"):
        features = read_npy(options.features)
    else:
        features = in_order(*embed(options.features, options.checkpoint, options.output), faces.names)
    result = judge(features, faces, pairs, scores)
    print(f"{result.num_templates} templates, {result.num_same} same and {result.num_different} different pairs")
    for far, tar in result.tar_at_far.items():
        print(f"  TAR@FAR={far:g}: {'too few pairs' if tar is None else f'{100 * tar:.2f} %'}")
    print(f"  AUC {result.auc:.5f}, EER {result.eer:.5f}")
    if options.json:
        write_text(options.json, json.dumps(as_plain(result), indent=2) + "\n", "--json")


def read_npy(path: str) -> np.ndarray:
    """The array, read from the file as it is used. Raises DataError."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def in_order(features: np.ndarray, paths: list[str], names: list[str]) -> np.ndarray:
    """The rows of pictures `names`. Raises DataError for a name that no path or more than one ends in."""
    rows: dict[str, int] = {}
    for row, path in enumerate(paths):
        if rows.setdefault(os.path.basename(path), row) != row:
            raise DataError(f"{path}: another picture of that name is there; IJB's pictures go by their file names")
    missing = [name for name in names if name not in rows]
    if missing:
        raise DataError(f"{len(missing)} of {len(names)} pictures have no features, the first is {missing[0]}")
    order = np.array([rows[name] for name in names])
    return features if np.array_equal(order, np.arange(len(features))) else features[order]


def as_plain(result: IjbResult) -> dict:
    return {**vars(result), "tar_at_far": {f"{far:g}": tar for far, tar in result.tar_at_far.items()}}


if __name__ == "__main__":
    main()
