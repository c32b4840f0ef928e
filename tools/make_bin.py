"""Make a verification set from a folder of identities: python tools/make_bin.py faces --out own.bin --pairs 6000

FOLDER has a sub-folder per identity. FILE.bin contains the unmodified image files; FILE.txt lists the paths of the
pairs. The first half of each fold are pairs of one identity. The same folder and seed give the same file.
"""

from __future__ import annotations

import argparse
import os

import numpy as np

from plsc.data import decode_image, read_image
from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import save_bin
from plsc.evaluation.folders import find_identities
from plsc.evaluation.pair_sets import save_pair_list
from plsc.evaluation.pairs import choose_pairs
from plsc.evaluation.verification import FOLDS
from plsc.parallel.excepthook import install_excepthook


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write. A PlscError ends the process with one line and status 1."""
    install_excepthook()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder with a sub-folder of images per identity")
    parser.add_argument("--out", metavar="FILE", required=True, help="the output: FILE.bin, or FILE.txt for a list")
    parser.add_argument(
        "--pairs", type=int, default=6000, help="number of pairs, a multiple of twice the folds (default: 6000)"
    )
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help=f"number of folds (default: {FOLDS}, as in verification)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the pairs (default: 0)")
    options = parser.parse_args(arguments)
    if not options.out.endswith((".bin", ".txt")):
        raise ConfigError(f"--out: {options.out!r}; must end in .bin or .txt")
    found = find_identities(options.folder)
    try:
        indices, issame = choose_pairs(found.sizes, options.pairs, options.folds, options.seed)
    except DataError as error:
        raise DataError(f"{options.folder}: {error}") from None
    contents = read_images(found.paths, np.unique(indices))
    chosen = indices.reshape(-1)
    if options.out.endswith(".bin"):
        save_bin(options.out, [contents[index] for index in chosen], issame.tolist())
    else:
        save_pair_list(options.out, [found.paths[index] for index in chosen], issame.tolist())
    size = os.path.getsize(options.out)
    print(
        f"{options.out}: {len(issame):,} pairs, {len(contents):,} images of {len(found.names):,} identities, "
        f"{size / 1e6:,.1f} MB"
    )


def read_images(paths: list[str], wanted: np.ndarray) -> dict[int, bytes]:
    """Return {index: bytes of the file}. Raises DataError for an invalid image, or one of another size."""
    contents: dict[int, bytes] = {}
    first = None
    for index in wanted.tolist():
        path = paths[index]
        try:
            contents[index] = read_image(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        height, width = decode_image(contents[index], path).shape[:2]
        first = first or (path, width, height)
        if (width, height) != first[1:]:
            raise DataError(
                f"{path} is {width} x {height} pixels, {first[0]} is {first[1]} x {first[2]}; all images of a "
                "set must have one size: crop or resize them first"
            )
    return contents


if __name__ == "__main__":
    main()
