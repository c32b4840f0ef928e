"""Identification: plsc identify --gallery known --probes new --distractors others --checkpoint run --output out

GALLERY, PROBES and DISTRACTORS are folders of images, which the model in --checkpoint embeds into OUTPUT, or
directories that `plsc predict` wrote. The identity of an image is the name of its folder; identities of distractors are
ignored. --matches FILE writes the best match of each probe: the identity of the most similar gallery image, and the
cosine. With distractors MegaFace's metrics are computed as well; without a gallery the
mates of a probe are then the other probes of its identity.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
from typing import Any

from plsc.cli.options import add_image_model, add_json, add_quiet, check_json, log_lines, print_json
from plsc.errors import DataError
from plsc.files.atomic import write_bytes
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gallery", metavar="PATH", help="images of known identities")
    parser.add_argument("--probes", metavar="PATH", required=True, help="images to identify")
    parser.add_argument(
        "--distractors", metavar="PATH", help="images of identities that are in neither gallery nor probes"
    )
    parser.add_argument("--matches", metavar="FILE", help="write the best match of each probe in the gallery as CSV")
    add_image_model(parser)
    add_json(parser)
    add_quiet(parser)
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    if not options.gallery and not options.distractors:
        options.refuse("give --gallery, --distractors or both")
    if options.matches and not options.gallery:
        options.refuse("--matches needs --gallery")
    check_json(options)
    with log_lines(options):
        metrics = compute_metrics(options)
    if not print_json(options, metrics):
        print_stdout("\n".join(table_lines(metrics)))


def compute_metrics(options: argparse.Namespace) -> dict:
    """All metrics as plain data. Raises DataError, ConfigError."""
    import numpy as np

    from plsc.cli.trained import embed
    from plsc.evaluation.identification import identify
    from plsc.evaluation.megaface import megaface

    sides: dict[str, Any] = {}
    found_in: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for side in ("gallery", "probes", "distractors"):
        source = getattr(options, side)
        if source:
            features, paths = embed(source, options.checkpoint, options.output and os.path.join(options.output, side))
            found_in[side] = paths
            names = [os.path.basename(os.path.dirname(path)) for path in paths]
            sides[side] = features, np.array([numbers.setdefault(name, len(numbers)) for name in names])
    metrics: dict = {
        side: {"images": len(ids), "identities": len(set(ids.tolist()))} for side, (_, ids) in sides.items()
    }
    distractors = sides["distractors"][0] if "distractors" in sides else None
    probes, probe_ids = sides["probes"]
    gallery, gallery_ids = sides.get("gallery", (None, None))
    if options.matches:
        write_matches(options.matches, (gallery, found_in["gallery"]), (probes, found_in["probes"]))
    if gallery is not None:
        found = identify(gallery, gallery_ids, probes, probe_ids, distractors)
        metrics["identification"] = {
            "rank_rate": plain(found.rank_rate), "tpir_at_fpir": plain(found.tpir_at_fpir),
            "num_mated": found.num_mated, "num_unmated": found.num_unmated,
        }  # fmt: skip
    if distractors is not None:
        rates, trials = megaface(probes, probe_ids, distractors, gallery, gallery_ids)
        metrics["megaface"] = {"rank_rate": plain(rates), "num_trials": trials}
    return metrics


def write_matches(file: str, gallery: tuple[Any, list[str]], probes: tuple[Any, list[str]]) -> None:
    """A table: probe, the identity of the most similar gallery image, the cosine, that image. Raises DataError.

    gallery, probes: features [N, E] and the paths of their images.
    """
    from plsc.serving.gallery import Gallery

    found = Gallery(*gallery).search(probes[0])
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["probe", "identity", "cosine", "image"])
    for probe, (name,), (cosine,) in zip(probes[1], found.names or [], found.cosine.tolist()):
        table.writerow([probe, os.path.basename(os.path.dirname(name)), f"{cosine:.4f}", name])
    try:
        write_bytes(file, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise DataError(f"--matches {file}: cannot be written: {error.strerror or error}") from None


def plain(rates: dict) -> dict[str, float | None]:
    return {f"{key:g}": value for key, value in rates.items()}


def table_lines(metrics: dict) -> list[str]:
    """The table."""
    lines = [
        f"{side}: {metrics[side]['images']:,} images of {metrics[side]['identities']:,} identities"
        for side in ("gallery", "probes", "distractors")
        if side in metrics
    ]
    if "identification" in metrics:
        part = metrics["identification"]
        lines.append(f"identification: {part['num_mated']:,} mated and {part['num_unmated']:,} unmated probes")
        lines += [f"  rank-{rank:9} {format_rate(rate)}" for rank, rate in part["rank_rate"].items()]
        lines += [f"  TPIR@FPIR={rate:4} {format_rate(tpir)}" for rate, tpir in part["tpir_at_fpir"].items()]
    if "megaface" in metrics:
        part = metrics["megaface"]
        lines.append(f"MegaFace: {part['num_trials']:,} trials of a probe and one mate")
        lines += [f"  rank-{rank:9} {format_rate(rate)}" for rank, rate in part["rank_rate"].items()]
    return lines


def format_rate(rate: float | None) -> str:
    return "too few probes" if rate is None else f"{100 * rate:.2f} %"
