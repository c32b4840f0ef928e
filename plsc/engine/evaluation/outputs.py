"""The files of a verification: metrics as JSON, a page as HTML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.data.transforms import PIXEL_MEAN
from plsc.engine.evaluation.sets import TestSet
from plsc.evaluation.identity_sets import IdentitySet
from plsc.evaluation.metric import PAIRS, Embedded
from plsc.evaluation.output_files import require_writable, write_text
from plsc.evaluation.page import write_page
from plsc.evaluation.page_data import PageData, page_data
from plsc.evaluation.results import SetResult
from plsc.evaluation.verification import pair_distances


@dataclass(frozen=True)
class Outputs:
    """Files to write, each "" for none. json_file: all metrics. html_file: the page that shows them."""

    json_file: str = ""
    html_file: str = ""

    def check(self) -> None:
        """Raise DataError where one of them cannot be written."""
        for what, path in (("--json", self.json_file), ("--html", self.html_file)):
            if path:
                require_writable(path, what)


@dataclass
class OutputWriter:
    """Collects the contents of the files set by set, then writes them. Used on one rank."""

    config: Config
    outputs: Outputs
    sets: list[PageData] = field(default_factory=list)

    def add(
        self,
        one: SetResult,
        found: TestSet,
        read: Callable[[int], np.ndarray],
        views: Mapping[str, Embedded],
    ) -> None:
        """Keep what the page shows of a set; the set itself is not kept in memory."""
        if not self.outputs.html_file or one.verification is None:
            return
        std, pairs = self.config.data.pixel_std, views[PAIRS]
        indices = found.pair_images if isinstance(found, IdentitySet) else np.arange(len(pairs.embeddings))
        distance = pair_distances(pairs.embeddings)
        self.sets.append(
            page_data(one.name, one.verification, distance, pairs.issame, lambda i: pixels(read(int(indices[i])), std))
        )

    def write(self, model: str, step: int, results: Mapping[str, SetResult]) -> list[str]:
        """Write the files and return their names. model, step: what was evaluated. Raises DataError."""
        if self.outputs.json_file:
            write_text(self.outputs.json_file, as_json(model, step, results), "--json")
        if self.outputs.html_file:
            numbers = {name: numbers_beside_verification(one) for name, one in results.items()}
            write_page(self.outputs.html_file, self.sets, f"{model}, after {step:,} steps", numbers)
        return [path for path in (self.outputs.json_file, self.outputs.html_file) if path]


def numbers_beside_verification(one: SetResult) -> dict[str, dict[str, float | None]]:
    """{metric: its values}, without verification, for which the page has charts."""
    return {
        name: found.values
        for name, found in one.computed.items()
        if one.verification is None or found.result is not one.verification
    }


def as_json(model: str, step: int, results: Mapping[str, SetResult]) -> str:
    """{"net": the model, "step": ..., "sets": {name: values as in scalars.jsonl}}, indented."""
    content: dict[str, Any] = {"net": model, "step": step, "sets": {name: one.record for name, one in results.items()}}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def pixels(image: np.ndarray, pixel_std: float) -> np.ndarray:
    """The input of the model, float32 [C, H, W], as an image uint8 [H, W, 3]: the inverse of ``normalise``.

    Without three channels the first one is shown as grey. Values are clipped to 0..255.
    """
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.clip(np.rint(channels * pixel_std + PIXEL_MEAN), 0, 255).astype(np.uint8).transpose(1, 2, 0)
