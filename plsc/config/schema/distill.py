"""The section `distill`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option


@dataclasses.dataclass(frozen=True)
class Distill:
    """A trained model as the teacher of a smaller one."""

    model: str = option(
        "", "An exported model (`plsc export`), or an ONNX file of another project, whose embeddings the features "
        "follow: `weight` * the mean of 1 - cosine is added to the loss. It takes the same images and gives embeddings "
        "of the same size. Empty for none.",
        per_rank="each machine may keep a copy of its own; its weights are compared",
    )  # fmt: skip
    weight: float = option(1.0, "The factor of the teacher's part of the loss.", within="(0, 1e6]")
    centres: str = option(
        "", "A teacher's checkpoint, or the directory of its run: every class has the teacher's centre, of the same "
        "size, and keeps it, so that features are trained against the teacher's centres. The classes are matched as by "
        "`init_from: classes`. A resumed run has them in its checkpoint. Empty for centres that are trained.",
    )  # fmt: skip
