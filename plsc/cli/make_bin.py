"""A verification set of your own images: plsc make-bin FACES --output own.bin

FACES is a folder with a sub-folder for each identity, or a list FILE.txt: path<TAB>identity, of which pairs are drawn,
or path_a<TAB>path_b<TAB>0|1, whose pairs are taken. FILE.bin contains the unmodified image files; FILE.txt lists their
paths. The first half of each fold are pairs of one identity. The same images and seed give the same file.
A file that is there already is not replaced.
"""

from __future__ import annotations

import argparse
import os

from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FACES", help="a folder of identities, a list of identities or of pairs")
    parser.add_argument("--output", metavar="FILE", required=True, help="FILE.bin, or FILE.txt for a list")
    parser.add_argument("--pairs", metavar="N", type=int,
                        help="a multiple of twice the folds; by default 6000, or as many as there are")  # fmt: skip
    parser.add_argument("--folds", metavar="N", type=int, help="10 by default, as in verification")
    parser.add_argument("--seed", metavar="N", type=int, help="of the draw; 0 by default")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    from plsc.data.transforms import decode_image
    from plsc.evaluation.make_set import ENDINGS, Draw, choose, write_set
    from plsc.evaluation.output_files import require_new

    if not options.output.endswith(ENDINGS):
        options.refuse(f"--output {options.output}: must end in {' or '.join(ENDINGS)}")
    require_new(options.output, "--output")

    def size_of(data: bytes, name: str) -> tuple[int, int]:
        height, width = decode_image(data, name).shape[:2]
        return width, height

    pairs = choose(options.source, Draw(options.pairs, options.folds, options.seed))
    images = write_set(pairs, options.output, size_of)
    of = "" if pairs.identities is None else f" of {pairs.identities:,} identities"
    megabytes = os.path.getsize(options.output) / 1e6
    print_stdout(
        f"{options.output}: {len(pairs.issame):,} pairs, {images:,} images{of}, {megabytes:,.1f} MB, read back"
    )
