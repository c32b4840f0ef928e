"""The programs that the tests of this folder read: one rank of eight, built without a GPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.parallel.environment import Environment
from tests.gpu.graph import Graph

WORLD = 8
BATCH = 4
GLOBAL_BATCH = BATCH * WORLD
NUM_CLASSES = 1003  # 126 a rank, 121 on the last: uneven
BUCKET = 20_000  # bytes: several buckets in the small net
EMBEDDING = 24  # no other variable of the small net is [num_local, 24]


@dataclass(frozen=True)
class Case:
    """What a program is built from."""

    rank: int = 3
    sample_ratio: float = 0.1
    model_parallel: bool = True
    half: bool = False
    dtype: str = "float16"
    clip: float | None = None
    calc_acc: bool = True
    loss_type: str = "arcface"
    model: str = "small"
    recompute: bool = False
    accumulate: int = 1

    @property
    def sampled(self) -> bool:
        return self.sample_ratio < 1.0

    @property
    def shard_world(self) -> int:
        return WORLD if self.model_parallel else 1

    @property
    def scaled(self) -> bool:
        """With a loss scale, and the head in half precision."""
        return self.half and self.dtype == "float16"

    @property
    def in_float32(self) -> Case:
        return replace(self, half=False)

    def __str__(self) -> str:
        parts = [f"rank{self.rank}", "sampled" if self.sampled else "full", self.loss_type]
        parts += ["mp" if self.model_parallel else "dp", self.dtype if self.half else "single"]
        parts += [f"by{self.accumulate}"] if self.accumulate > 1 else []
        return "-".join(parts + (["clip"] if self.clip else []) + ([self.model] if self.model != "small" else []))

    def config(self) -> Config:
        small = {"name": "ResNet18", "base_width": 4, "image_shape": [3, 32, 32], "embedding_size": EMBEDDING}
        return Config.from_dict(
            {
                "model": {**(small if self.model == "small" else {"name": self.model}), "recompute": self.recompute},
                "classifier": {
                    "num_classes": NUM_CLASSES,
                    "sample_ratio": self.sample_ratio,
                    "model_parallel": self.model_parallel,
                    "loss_type": self.loss_type,
                },
                "mixed_precision": {"enabled": self.half, "dtype": self.dtype},
                "train_batch_size": BATCH // self.accumulate,
                "accumulate": self.accumulate,
                "grad_clip_norm": self.clip,
                "calc_acc": self.calc_acc,
            }
        )


def environment(rank: int) -> Environment:
    endpoints = tuple(f"127.0.0.1:{7000 + number}" for number in range(WORLD))
    return Environment(rank, WORLD, rank, WORLD, endpoints, "gpu", rank)


class Built:
    """A program with its graph and the variables that the checks speak of."""

    def __init__(self, case: Case):
        self.case = case
        options = BuildOptions(bucket_bytes=BUCKET, pixels=True)
        self.program = build_train(case.config(), UserObjects(), environment(case.rank), seed=7, options=options)
        self.graph = Graph(self.program.main)
        self.weight = self.program.rows.tensors["weight"]
        self.velocity = self.program.rows.tensors["velocity"]
        self.num_local = self.program.shard.num_local
        self.row_shape = [self.num_local, self.program.spec.row_size]
        self.num_rows = rows_of_a_step(case, self.program.shard)
        trainable = [p.name for p in self.graph.block.all_parameters() if p.trainable and not p.stop_gradient]
        self.backbone = [name for name in trainable if name != self.weight]


def rows_of_a_step(case: Case, shard) -> int:
    """As the program knows them: the kernel that draws a sample may take more, so -1."""
    if case.sampled and case.model_parallel:
        return -1
    return shard.num_sample


@functools.cache
def built(case: Case) -> Built:
    """Programs are only read, so the tests share them."""
    return Built(case)


CASES = [
    *(Case(rank=rank, sample_ratio=ratio) for rank in (0, 3, 7) for ratio in (0.1, 1.0)),
    *(Case(rank=7, sample_ratio=ratio, half=True, clip=5.0, calc_acc=False) for ratio in (0.1, 1.0)),
    Case(rank=0, half=True),
    Case(rank=3, half=True, dtype="bfloat16", clip=5.0),
    Case(rank=3, sample_ratio=1.0, clip=5.0, loss_type="cosface"),
    *(Case(rank=3, sample_ratio=ratio, model_parallel=False) for ratio in (0.1, 1.0)),
    *(Case(rank=7, sample_ratio=ratio, model_parallel=False, half=True, clip=5.0) for ratio in (0.1, 1.0)),
    Case(rank=7, half=True, model="ResNet50", calc_acc=False),
    Case(rank=3, accumulate=2),
    Case(rank=7, half=True, clip=5.0, calc_acc=False, accumulate=4),
]
