"""`.bin`, pair list and folder of identities, on 1 and 2 ranks, with tails and sets smaller than a batch."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from plsc.evaluation.bin_file import save_bin
from plsc.evaluation.embeddings import combine_flip
from plsc.evaluation.verification import verify
from tests import using_kit as kit
from tests.dist import ranks
from tests.dist.sets_cases import figures

BATCHES = (7, 32)  # 24, 24 and 40 pictures: a tail on 1 and 2 ranks; sets smaller than a batch, and than one of all
NAMES = ["own", "sub/pairs.txt", "faces/"]


def person(identity: int, picture: int) -> np.ndarray:
    noise = kit.pixels(1000 + 10 * identity + picture).astype(int) // 2
    return np.clip(kit.pixels(identity).astype(int) // 2 + noise, 0, 255).astype(np.uint8)


def make_sets(root) -> dict[str, tuple[list[np.ndarray], list[bool]]]:
    """Writes the three sets; returns what is in the two whose pairs are ours: {name: (pictures, issame)}."""
    for identity in range(5):
        (root / "faces" / f"{identity}").mkdir(parents=True)
        for picture in range(3):
            Image.fromarray(person(identity, picture)).save(root / "faces" / f"{identity}" / f"{picture}.png")
    same = [bool(pair % 2) for pair in range(12)]
    who = [(pair % 5, pair % 3, (pair if pair % 2 else pair + 1) % 5, (pair + 1) % 3) for pair in range(12)]
    pictures = [person(*one) for pair in who for one in (pair[:2], pair[2:])]
    save_bin(root / "own.bin", pictures, same)
    (root / "sub").mkdir()
    lines = [f"../faces/{a}/{b}.png\t../faces/{c}/{d}.png\t{int(flag)}" for (a, b, c, d), flag in zip(who, same)]
    (root / "sub" / "pairs.txt").write_text("\n".join(lines))
    return {"own": (pictures, same), "sub/pairs.txt": (pictures, same)}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """({set: expected figures}, {world size: what each rank found})."""
    root = tmp_path_factory.mktemp("sets")
    contents = make_sets(root)
    run, expected = kit.train(root / "run"), {}
    for name, (pictures, same) in contents.items():
        plain = np.concatenate([kit.net_input(picture) for picture in pictures])
        features = [kit.evaluation_program(run, images) for images in (plain, plain[:, :, :, ::-1].copy())]
        embeddings, xnorm = combine_flip(*features)
        expected[name] = figures(verify(embeddings, same, xnorm=xnorm))
    payload = {"run": run, "sets": str(root), "names": NAMES, "batches": BATCHES}
    found = {}
    for world_size in (1, 2):
        cwd = root / f"ranks{world_size}"
        cwd.mkdir()
        found[world_size] = ranks.run("tests.dist.sets_cases:judge", world_size, cwd, {**payload, "out": str(cwd)})
    return expected, found


def test_figures_are_those_of_the_evaluation_program(outcome):
    expected, found = outcome
    for world_size, parts in found.items():
        assert len(parts) == world_size
        for part in parts:
            for batch in BATCHES:
                assert list(part[batch]) == NAMES
                for name, figure in expected.items():
                    assert part[batch][name][:-1] == figure[:-1], (world_size, batch, name)
                    assert abs(part[batch][name][-1] / figure[-1] - 1) < 1e-4  # float32 sums in another order


def test_the_folder_is_judged_alike_everywhere(outcome):
    figures_found = [part[batch]["faces/"] for parts in outcome[1].values() for part in parts for batch in BATCHES]
    assert len(figures_found) == 6
    for one in figures_found:
        # 5 identities of 3 pictures: 15 pairs of one identity, so 10 of each kind in 10 folds
        assert one[:-1] == figures_found[0][:-1] and one[3:5] == (10, 10)
        assert abs(one[-1] / figures_found[0][-1] - 1) < 1e-4
