"""Who is it? python tools/identify.py --gallery known --probes new --distractors others --checkpoint run --output out

GALLERY, PROBES and DISTRACTORS are folders of pictures, which the net in --checkpoint turns into features below OUTPUT,
or directories that tools/predict.py wrote. An identity is the name of the folder that a picture lies in; those of
distractors do not count. With distractors MegaFace's figures are given, too; without a gallery the mates of a probe are
then the other probes of its identity.
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np

from plsc.command_line import embed
from plsc.evaluation.identification import identify
from plsc.evaluation.megaface import megaface
from plsc.evaluation.output_files import check_place, write_text
from plsc.parallel.excepthook import install_excepthook


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and report. A PlscError ends the process with one line and status 1."""
    install_excepthook()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", metavar="PATH", help="the known ones")
    parser.add_argument("--probes", metavar="PATH", required=True, help="those to look up")
    parser.add_argument("--distractors", metavar="PATH", help="pictures of nobody in gallery or probes")
    parser.add_argument("--checkpoint", metavar="DIR", help="the net, for folders of pictures")
    parser.add_argument("--output", metavar="DIR", help="where the features of pictures go")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    if not options.gallery and not options.distractors:
        parser.error("give --gallery, --distractors or both")
    if options.json:
        check_place(options.json, "--json")
    figures = judge(options)
    for line in lines_of(figures):
        print(line)
    if options.json:
        write_text(options.json, json.dumps(figures, indent=2) + "\n", "--json")


def judge(options: argparse.Namespace) -> dict:
    """All figures as plain data. Raises DataError, ConfigError."""
    sides, numbers = {}, {}
    for side in ("gallery", "probes", "distractors"):
        source = getattr(options, side)
        if source:
            features, paths = embed(source, options.checkpoint, options.output and os.path.join(options.output, side))
            names = [os.path.basename(os.path.dirname(path)) for path in paths]
            sides[side] = features, np.array([numbers.setdefault(name, len(numbers)) for name in names])
    figures: dict = {
        side: {"images": len(ids), "identities": len(set(ids.tolist()))} for side, (_, ids) in sides.items()
    }
    distractors = sides["distractors"][0] if "distractors" in sides else None
    if "gallery" in sides:
        found = identify(*sides["gallery"], *sides["probes"], distractors)
        figures["identification"] = {
            "rank_rate": plain(found.rank_rate), "tpir_at_fpir": plain(found.tpir_at_fpir),
            "num_mated": found.num_mated, "num_unmated": found.num_unmated,
        }  # fmt: skip
    if distractors is not None:
        rates, trials = megaface(*sides["probes"], distractors, *sides.get("gallery", ()))
        figures["megaface"] = {"rank_rate": plain(rates), "num_trials": trials}
    return figures


def plain(rates: dict) -> dict[str, float | None]:
    return {f"{key:g}": value for key, value in rates.items()}


def lines_of(figures: dict) -> list[str]:
    """The table."""
    lines = [
        f"{side}: {figures[side]['images']} pictures of {figures[side]['identities']} identities"
        for side in ("gallery", "probes", "distractors")
        if side in figures
    ]
    if "identification" in figures:
        part = figures["identification"]
        lines.append(f"identification: {part['num_mated']} mated and {part['num_unmated']} unmated probes")
        lines += [f"  rank-{rank:9} {text(rate)}" for rank, rate in part["rank_rate"].items()]
        lines += [f"  TPIR@FPIR={rate:4} {text(tpir)}" for rate, tpir in part["tpir_at_fpir"].items()]
    if "megaface" in figures:
        part = figures["megaface"]
        lines.append(f"MegaFace: {part['num_trials']} trials of a probe and one mate")
        lines += [f"  rank-{rank:9} {text(rate)}" for rank, rate in part["rank_rate"].items()]
    return lines


def text(rate: float | None) -> str:
    return "too few probes" if rate is None else f"{100 * rate:.2f} %"


if __name__ == "__main__":
    main()
