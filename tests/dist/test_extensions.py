"""The pages "add a ...": their code, in a package outside of the repository, trains on two ranks as on one."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.registry import REGISTRIES
from tests.dist.ranks import run
from tests.project.docs_kit import ROOT, blocks

PAGES = ("add_a_backbone.md", "add_a_data_source.md", "add_an_augmentation.md", "add_a_schedule.md")
IMAGES, CLASSES = 24, 12


def write_pages(directory: Path) -> None:
    """Each block that begins with `# name` becomes that file."""
    for page in PAGES:
        found = [(block, re.match(r"# (\S+\.(?:py|yaml))\n", block.text)) for block in blocks(ROOT / "docs" / page)]
        names = {name[1]: block.text for block, name in found if name is not None}
        assert len(names) >= 2, f"{page}: no code and no settings"
        for name, text in names.items():
            (directory / name).write_text(text, encoding="utf-8")


def write_images(path: Path) -> None:
    """A tar file as the page reads it: the directory of an image is its label."""
    rng = np.random.default_rng(0)
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for number in range(IMAGES):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{number % CLASSES}/{number}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, list[dict]]:
    """{number of ranks: what each rank tells of its run}."""
    found = {}
    for ranks in (1, 2):
        directory = tmp_path_factory.mktemp(f"ranks{ranks}")
        (directory / "their_package").mkdir()
        (directory / "their_package" / "__init__.py").write_text("")
        write_pages(directory)
        write_images(directory / "data" / "train.tar")
        (directory / "tiny_net.py").rename(directory / "their_package" / "tiny_net.py")  # one by its module's name
        found[ranks] = run("tests.dist.extension_cases:train", ranks, directory, {"cwd": str(directory)})
    return found


def test_every_rank_runs_the_code_of_the_pages(trained):
    for results in trained.values():
        for told in results:
            assert told["model"] == "their_package.tiny_net.TinyNet"
            assert told["lr"] == pytest.approx(expected_rates(), rel=1e-12)


def expected_rates() -> list[float]:
    """Two steps of warm-up to 0.5, then down to a tenth at step 6."""
    return [0.0, 0.25, *(0.5 * 0.1 ** (step / 4) for step in range(4))]


def test_two_ranks_are_one(trained):
    one, two = trained[1][0]["loss"], trained[2][0]["loss"]
    assert trained[2][1]["loss"] == two and len(one) == 6
    # float32 sums over the batch in another order; batch norm, whose statistics are each rank's own, is left out
    np.testing.assert_allclose(two, one, rtol=2e-5)
    assert one[-1] != one[0]


def test_options_and_data_are_in_the_checkpoint(trained):
    for results in trained.values():
        assert results[0]["manifest"]["model"]["options"] == {"depth": 2, "batch_norm": False}
        assert results[0]["manifest"]["lr_schedule"]["options"] == {"final": 0.1}
        assert results[0]["manifest"]["data"]["options"] == {"file": "train.tar"}
        assert results[0]["manifest"]["data"]["augmentations"] == ["flip", {"brightness": {"most": 0.3}}]
        data = results[0]["data"]
        assert (data["kind"], data["images"], data["num_classes"]) == ("class_tar", IMAGES, CLASSES) and data["digest"]


def test_a_trained_model_is_used_with_the_options_in_its_checkpoint(trained):
    used = trained[1][0]["used"]
    assert used["features"] == [3, 8] and "plsc.json" in used["exported"]


def test_the_settings_of_the_pages_are_good(tmp_path, monkeypatch):
    for registry in REGISTRIES.values():  # what the same page registered in another test
        built_in = {entry.name: entry for entry in registry.entries() if entry.module.startswith("plsc.")}
        monkeypatch.setattr(registry, "_entries", built_in)
    write_pages(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = sorted(tmp_path.glob("*.yaml"))
    assert len(files) == len(PAGES)
    for file in files:
        config = Config.from_yaml(file)
        assert config.plugins and config.without_effect() == []
        UserObjects().check(config)
