"""Draw a data set with many classes, images of Chinese characters, from fonts that pip installs.

    pip install manimgx-fonts-cjk paperang-p2-fonts-cjk
    python tools/make_glyphs.py --out data/glyphs --classes 500 --size 64

See docs/glyphs.md for the files and the verification sets.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

# Run from a checkout: plsc need not be installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from plsc.errors import ConfigError, PlscError  # noqa: E402


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the set; must be new or empty")
    parser.add_argument("--classes", type=int, default=500, help="characters, trained and held out (default 500)")
    parser.add_argument(
        "--held-out-classes", type=int, help="number of held-out characters among them (default: a tenth)"
    )
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels (default 64)")
    parser.add_argument("--per-class", type=int, default=30, help="training images per class (default 30)")
    parser.add_argument("--pairs", type=int, default=3000, help="pairs in each .bin, a multiple of 20 (default 3000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument("--processes", type=int, default=0, help="drawing processes; 0 means one per core (default)")
    parser.add_argument(
        "--charset",
        default="gb2312-1",
        help="gb2312-1 (3,755 characters, default), gb2312 (6,763), uro (20,902), uro+hangul (32,074)",
    )
    parser.add_argument(
        "--train-designs", default="sans", help="sans, microhei or serif, separated by commas (default sans)"
    )
    parser.add_argument(
        "--held-out-designs", default="microhei", help="designs not in the training set (default microhei)"
    )
    return parser.parse_args(arguments)


def check(options: argparse.Namespace):
    """Check the options and return Settings. Raises ConfigError that names the first invalid option."""
    from glyphs.build import Settings
    from glyphs.charsets import CHARSETS

    if options.charset not in CHARSETS:
        raise ConfigError(f"--charset is '{options.charset}', allowed: {', '.join(CHARSETS)}")
    held_out = options.classes // 10 if options.held_out_classes is None else options.held_out_classes
    ranges = (
        ("--classes", options.classes, 2, 99999),
        ("--held-out-classes", held_out, 2, options.classes - 2),
        ("--size", options.size, 16, 512),
        ("--per-class", options.per_class, 1, 100000),
        ("--pairs", options.pairs, 20, 1000000),
        ("--seed", options.seed, 0, 2**64 - 1),
        ("--processes", options.processes, 0, 1024),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}, allowed: {low} to {high}")
    if options.pairs % 20:
        raise ConfigError(f"--pairs is {options.pairs}, allowed: a multiple of 20 (ten folds, each half same)")
    train, held_out_designs = _designs(options)
    return Settings(
        options.classes,
        held_out,
        options.size,
        options.per_class,
        options.pairs,
        options.seed,
        options.charset,
        train,
        held_out_designs,
    )


def _designs(options: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from glyphs.fonts import DESIGNS

    train, held_out = tuple(options.train_designs.split(",")), tuple(options.held_out_designs.split(","))
    for design in train + held_out:
        if design not in DESIGNS:
            raise ConfigError(f"design '{design}' is unknown, allowed: {', '.join(DESIGNS)}")
        if (train + held_out).count(design) > 1:
            raise ConfigError(
                f"design '{design}' is named twice in --train-designs {options.train_designs} "
                f"--held-out-designs {options.held_out_designs}: name each at most once"
            )
    return train, held_out


def main() -> int:
    options = parse()
    # A terminated run cleans up after itself like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        from glyphs.build import build, default_processes

        settings = check(options)
        made = build(options.out, settings, options.processes or default_processes())
    except PlscError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install pillow numpy", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write --out {options.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 130
    trained = settings.classes - settings.held_out_classes
    print(
        f"{options.out}: {'made' if made else 'already there'}, {trained:,} trained classes x {settings.per_class:,} "
        f"images, {settings.held_out_classes:,} classes held out, 3 sets of {settings.pairs:,} pairs"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
