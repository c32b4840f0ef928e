"""What is on the page of a verification, held against plain loops; escaping, size, and how the file is written."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from plsc.errors import ConfigError, DataError
from plsc.evaluation import charts
from plsc.evaluation.page import page, write_page
from plsc.evaluation.page_data import page_data
from plsc.evaluation.tables import verification_table
from plsc.evaluation.verification import pair_distances, verify
from tests.evaluation import page_kit as kit


def numbers(points: str) -> np.ndarray:
    return np.array([[float(x) for x in point.split(",")] for point in points.split()])


def test_worst_pairs_are_those_of_a_plain_loop():
    one, distance, same = kit.made_up(600, noise=2.0)
    wrong = []
    for pair in range(600):
        taken = distance[pair] < one.result.threshold
        if taken != same[pair]:
            wrong.append((-abs(distance[pair] - one.result.threshold), pair))
    assert one.num_mistakes == len(wrong) > 20
    assert [mistake.pair for mistake in one.mistakes] == [pair for _, pair in sorted(wrong)[:20]]
    for mistake in one.mistakes:
        assert mistake.same == same[mistake.pair]
        assert mistake.score == pytest.approx(1 - distance[mistake.pair] / 2, abs=1e-12)
        assert (mistake.score > one.threshold) != mistake.same  # threshold and score are both cosines


def test_histograms_count_every_pair_once():
    one, distance, same = kit.made_up(600)
    score = 1 - distance / 2
    for kind, counts in ((True, one.same), (False, one.different)):
        expected = [0] * len(counts)
        for value in score[same == kind]:
            expected[max(place for place in range(len(counts)) if one.edges[place] <= value)] += 1
        assert counts.tolist() == expected and counts.sum() == 300


def test_images_are_small_and_keep_their_shape():
    one, _, _ = kit.made_up(600, worst=2)
    assert len(one.mistakes) == 2
    for mistake in one.mistakes:
        for side, jpeg in enumerate(mistake.images):
            with Image.open(io.BytesIO(jpeg)) as image:
                assert image.format == "JPEG" and image.size == (112, 75)  # of 300 x 200
                # JPEG turns a colour by a few of 255
                assert np.abs(np.asarray(image, int) - kit.colour_of(2 * mistake.pair + side)).max() <= 6


def test_roc_goes_through_the_points_of_the_curve():
    one, _, _ = kit.made_up(600)
    (points,) = re.findall(r'<polyline class="roc" points="([^"]+)"', charts.roc_chart(one.result))
    drawn = numbers(points)
    low = 0.5 / one.result.num_different
    floor = max(f for f in charts.FLOORS if f <= one.result.tpr[one.result.fpr == 0].max())
    across = charts.LEFT + (charts.RIGHT - charts.LEFT) * np.log(np.maximum(one.result.fpr, low) / low) / -np.log(low)
    rise = (np.maximum(one.result.tpr, floor) - floor) / (1 - floor)
    up = charts.BOTTOM - (charts.BOTTOM - charts.TOP) * rise
    for x, y in drawn:  # a point of the curve, or the foot of the step to it
        # half a grain in each direction, as the curve is put on a grid
        corner = np.maximum(np.abs(across - x), np.abs(up - y)).min()
        foot = np.maximum(np.abs(across[1:] - x), np.abs(up[:-1] - y)).min()
        assert min(corner, foot) <= charts.RESOLUTION / 2 + 1e-9
    assert drawn[0].tolist() == [charts.LEFT, charts.BOTTOM] and drawn[-1].tolist() == [charts.RIGHT, charts.TOP]
    for x, y in zip(across, up):  # and leaves none out: each lies on a line between two drawn points
        a, b = drawn[:-1], drawn[1:]
        inside = (np.minimum(a, b) - 1 <= [x, y]).all(axis=1) & (np.maximum(a, b) + 1 >= [x, y]).all(axis=1)
        assert inside.any()


def extreme(kind: str):
    rng = np.random.default_rng(0)
    same = np.arange(40) % 2 == 0
    first = rng.standard_normal((40, 8))
    second = {"perfect": np.where(same[:, None], first, -first), "wrong": np.where(same[:, None], -first, first),
              "equal": first, "zero": 0 * first}[kind]  # fmt: skip
    embeddings = np.stack([first, second], axis=1).reshape(80, 8)
    return page_data(kind, verify(embeddings, same), pair_distances(embeddings), same, kit.picture)


@pytest.mark.parametrize("kind", ["perfect", "wrong", "equal", "zero"])
def test_nothing_is_drawn_outside_of_the_frame(kind):
    one = extreme(kind)
    assert one.same.sum() == one.different.sum() == 20
    text = charts.roc_chart(one.result) + charts.score_chart(one)
    assert "nan" not in text and "inf" not in text
    drawn = np.concatenate([numbers(points) for points in re.findall(r'points="([^"]+)"', text)])
    assert (drawn[:, 0] >= charts.LEFT).all() and (drawn[:, 0] <= charts.RIGHT).all()
    assert (drawn[:, 1] >= charts.TOP).all() and (drawn[:, 1] <= charts.BOTTOM).all()


def test_one_threshold_only_gives_no_slope():
    """All scores equal: none accepted or all. A slope on a logarithmic axis would promise TAR far above FAR."""
    (points,) = re.findall(r'<polyline class="roc" points="([^"]+)"', charts.roc_chart(extreme("equal").result))
    left, right, top, bottom = charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM
    assert numbers(points).tolist() == [[left, bottom], [right, bottom], [right, top]]


class Reader(HTMLParser):
    """Every tag and every attribute that may fetch something; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "line", "polyline", "polygon")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources, self.heard = [], set(), [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.heard += data


def test_names_are_text_and_nothing_is_fetched():
    name = "</h2><script>alert('1')</script><img src=http://x/y onerror=\"z\">&amp;"
    one, _, _ = kit.made_up(200, name, worst=3)
    text = page([one, one], name)
    reader = Reader()
    reader.feed(text)
    assert not reader.open and "script" not in reader.tags and "link" not in reader.tags
    assert reader.heard.count(name) == 6  # title, line below the head, two rows of the table, two heads
    assert len(reader.sources) == 12 and all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert base64.b64decode(reader.sources[0].split(",")[1]) == one.mistakes[0].images[0]
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


def test_size_does_not_grow_with_the_number_of_pairs():
    one, _, _ = kit.made_up(100_000, worst=0, noise=2.0)
    assert len(one.result.fpr) > 10_000  # corners of the curve
    assert len(page([one], "many")) < 60_000


def test_the_file_is_replaced_at_once_or_stays(tmp_path, monkeypatch):
    one, _, _ = kit.made_up(200, worst=0)
    path = tmp_path / "page.html"
    write_page(path, [one], "first")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="page.html: cannot be written: No space left"):
        write_page(path, [one], "second")
    assert "first" in path.read_text() and [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("worst", [-1, 21])
def test_more_pairs_than_a_page_takes_are_refused(worst):
    with pytest.raises(ConfigError, match=rf"{worst} worst pairs; allowed: 0 to 20"):
        kit.made_up(200, worst=worst)


def test_table_has_a_line_for_each_set():
    few, many = kit.made_up(200)[0].result, kit.made_up(4000)[0].result
    head, first, second = verification_table({"a long name": few, "b": many})
    assert head.startswith("set          accuracy") and head.endswith("TAR@FAR=0.001")
    assert first.startswith(f"a long name  {100 * few.accuracy:.2f} % +- ") and first.endswith("too few pairs")
    assert second.endswith(f"{many.tar_at_far[1e-3]:.4f}") and f"{many.auc:.5f}" in second
    assert first.index(f"{few.auc:.5f}") == second.index(f"{many.auc:.5f}") == head.index("AUC")
