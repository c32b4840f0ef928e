"""Estimates the memory of one rank from the programs of a run.

Exact, from the shapes of the variables: weights, momentum, backbone. Counted: the temporaries of a step, from its
operations with the tensors alive at each (plsc.backend.program_view); within a few percent of Paddle's own counter.
By a rule found by measuring: what oneDNN keeps. Constants, measured once (docs/history.md): Paddle's process itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import paddle

from plsc.backend import onednn, program_view, static
from plsc.config import Config
from plsc.config.schema import NEVER
from plsc.config.user_objects import UserObjects
from plsc.engine.memory.teacher import teacher_bytes
from plsc.engine.program import session
from plsc.engine.program.build import BuildOptions, build_eval, build_train
from plsc.engine.program.inputs import feeds_pixels
from plsc.engine.program.programs import EvalProgram, TrainProgram
from plsc.engine.program.variables import Role
from plsc.errors import ConfigError, PlscError
from plsc.parallel.environment import Environment
from plsc.rows.blocks import BLOCK_ROWS
from plsc.rows.history import WINDOW_STEPS

# On a GPU, assumed and not measured: the memory of CUDA, cuDNN, cuBLAS and NCCL, and the largest cuDNN workspace of a
# convolution (FLAGS_conv_workspace_size_limit, 512 MB).
CUDA = 800_000_000
CONVOLUTION = 512 * 2**20
# Bytes for each class of the shard that class_center_sample works with: keys and values of a sort, int64, before and
# after it, and once more inside of it.
SAMPLING_BYTES = 6 * 8
PREFETCH = 2  # batches that each worker of plsc.data.Loader prefetches
LOOP_BATCHES = 2  # batches that the loop holds: the current and the previous one
STEP = "a step, at its peak"
TEACHER = "teacher, for a batch"
NEXT_INPUTS = "inputs of the next step"


@dataclass(frozen=True)
class Constants:
    """``pair``: bytes for each pair of operations, whose dependencies the executor analyses. ``copies``: whether the
    first run keeps oneDNN's results and their copies in Paddle's layout."""

    pair: int
    copies: bool


PADDLE_26 = Constants(pair=90, copies=True)
PADDLE_3 = Constants(pair=6, copies=False)
START = 55_000_000  # bytes beyond importing Paddle, after building and running programs: code pages, threads
OPERATION = 20_000  # bytes: its description in the program, and its state in the executor
WORKER = 40_000_000  # bytes of a process that reads data
CHANNELS = 16  # in a block of oneDNN's layouts, of processors with AVX-512


def executor_bytes(operations: int) -> int:
    """Bytes that Paddle's description of a program of so many operations, and its executor, take on the host."""
    constants = PADDLE_3 if static.is_pir() else PADDLE_26
    return OPERATION * operations + constants.pair * operations**2


@dataclass(frozen=True)
class RankMemory:
    """What the first rank needs, see MemoryPlan."""

    sizes: dict[str, int]
    detail: dict[str, int]
    snapshot: int


class MemoryEstimator:
    """Estimates the memory of a rank for a number of classes. ``process``: bytes it holds already, None to count
    tensors only. ``device``: gpu for the memory of a GPU.

    Without a GPU build of Paddle half precision is ignored: it cannot be built.
    """

    def __init__(self, config: Config, user_objects: UserObjects, ranks: int, process: int | None, device: str = "cpu"):
        self._config, self._user_objects, self._ranks, self._process = config.copy(), user_objects, ranks, process
        self._device = device
        if not (device == "gpu" and paddle.is_compiled_with_cuda()):
            self._config.set("mixed_precision.enabled", False, "plan")
        self._totals: dict[int, int] = {}
        self._teacher = teacher_bytes(self._config)

    def total(self, num_classes: int) -> int:
        """The sum in bytes."""
        if num_classes not in self._totals:
            self._totals[num_classes] = sum(self.of(num_classes).sizes.values())
        return self._totals[num_classes]

    def of(self, num_classes: int) -> RankMemory:
        """Build the programs for this number of classes. Raises ConfigError for operations that are not supported."""
        config, user_objects = self._config.copy(), self._user_objects.for_one_run()
        env = Environment(0, self._ranks, device=self._device)
        config.set("classifier.num_classes", num_classes, "plan")
        options = BuildOptions(dry_run=True, pixels=feeds_pixels(config, user_objects))
        program = build_train(config, user_objects, env, seed=0, options=options)
        evaluation = build_eval(config, user_objects, env, config.test_batch_size) if config.with_test else None
        try:
            found = estimate_memory(config, env, program, evaluation, self._process)
            if self._teacher:
                found.sizes[TEACHER] = self._teacher
            return found
        except PlscError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise ConfigError(
                f"plan: the memory of this model cannot be counted ({type(error).__name__}: {reason}); it can be "
                "trained nevertheless, and its log then says that the memory was not estimated"
            ) from error


def estimate_memory(
    config: Config,
    env: Environment,
    program: TrainProgram,
    evaluation: EvalProgram | None,
    process: int | None,
) -> RankMemory:
    """The memory of a rank that runs these programs. process: as in MemoryEstimator."""
    ops = program_view.operations(program.main)
    variables = {name: tensor.size() for name, tensor in program_view.persistables(ops).items()}
    sizes = _by_kind(program, dict(variables))
    replicated = sizes["backbone"] + sizes["backbone's momentum"]
    step = program_view.peak_memory(ops, program.shard.num_sample, min(BLOCK_ROWS, program.shard.num_sample))
    verifying, verified = _verification(evaluation)
    sizes[STEP] = sum(step.values())
    sizes["verification, saving: beside that"] = max(verifying, replicated, sizes[STEP]) - sizes[STEP]
    sizes["verification, saving: beside that"] += _saving_bytes(program, env)
    if env.on_gpu:
        uses_kernel = any(op.kind == "class_center_sample" for op in ops)
        sizes["drawing the sample"] = SAMPLING_BYTES * program.shard.num_local if uses_kernel else 0
        sizes["convolutions, at most"] = CONVOLUTION if any(op.kind == "conv2d" for op in ops) else 0
        sizes[NEXT_INPUTS] = _next_inputs(config, ops)
        sizes["CUDA, cuDNN and NCCL (assumed)"] = CUDA
    if process is not None:
        constants = PADDLE_3 if static.is_pir() else PADDLE_26
        sizes["images"] = _image_bytes(config, program.pixels)
        sizes["oneDNN"] = _onednn_bytes(config, constants, ops, verified)
        sizes["drawing the first weights"] = _peak_bytes(program.startup, 1)  # leaves room of other sizes
        count = len(list(program_view.walk(ops)))
        sizes["operations"] = OPERATION * count + constants.pair * len(ops) ** 2
        sizes["process"] = process + START
    snapshot = sum(variables[name] for name in {table.value.name for table in program.tables.values()}) + replicated
    return RankMemory(sizes, _detail(ops, program, step), snapshot)


def _by_kind(program: TrainProgram, variables: dict[str, int]) -> dict[str, int]:
    """The bytes of the persistent variables, by role."""
    weight, of_classes = program.rows.table, {*program.rows.variables, *program.names(Role.CLASSES)}
    backbone = set(program.backbone)
    kinds = dict.fromkeys(("class weights", "class momentum", "backbone", "backbone's momentum"), 0)
    if program.hard is not None:
        kinds["nearest classes"] = variables.pop(program.hard.table.value.name)
    for name, size in variables.items():
        if name in of_classes:
            share = size // weight.stride if name == weight.value.name else 0
            kinds["class weights"] += share
            kinds["class momentum"] += size - share
        else:
            kinds["backbone" if name in backbone else "backbone's momentum"] += size
    return kinds


def _saving_bytes(program: TrainProgram, env: Environment) -> int:
    """Temporary bytes while rows are brought up to date and read in blocks. They are added: the buffers that a step
    of a small model frees have other sizes."""
    block = min(session.BLOCK_ROWS, program.shard.num_local)
    running = session.Session(program, replace(env, device="cpu"), seed=0)
    return max(_peak_bytes(main, block) for main in running.block_programs())


def _verification(evaluation: EvalProgram | None) -> tuple[int, list[program_view.Operation]]:
    """(temporary bytes of a batch, the operations)."""
    if evaluation is None:
        return 0, []
    return _peak_bytes(evaluation.main, 1), program_view.operations(evaluation.main)


def _next_inputs(config: Config, ops: list[program_view.Operation]) -> int:
    """Bytes that a GPU has been sent for the step behind the one that it computes."""
    return 0 if config.late_results == NEVER else sum(program_view.input_bytes(ops, WINDOW_STEPS + 1).values())


def _peak_bytes(main, unknown: int) -> int:
    return sum(program_view.peak_memory(program_view.operations(main), unknown).values())


def _image_bytes(config: Config, pixels: bool) -> int:
    """The batches of the loop, and those that are stored by each worker, uint8 for ``pixels`` and float32 otherwise."""
    values = config.step_batch_size * math.prod(config.model.image_shape)
    workers = config.data.num_workers
    return values * (1 if pixels else 4) * (LOOP_BATCHES + PREFETCH * workers) + WORKER * workers


def _onednn_bytes(config: Config, constants: Constants, *programs: list[program_view.Operation]) -> int:
    """The buffers that oneDNN keeps for its convolutions, and Paddle for their results.

    A convolution keeps its input and its filter in oneDNN's layout. Its gradient keeps the input again, and for each of
    its two results the gradient of the output and a filter. In the first run with ``copies`` the results of a
    convolution are stored three times, those of a PReLU twice (found by measuring).
    """
    if not config.use_onednn or config.layout != "NCHW" or not onednn.is_available():
        return 0
    kept = copies = 0
    for op in (op for ops in programs for op in ops):
        kind = op.kind.replace("depthwise_", "")
        if kind == "prelu":
            copies += op.writes[0].size()
        if kind not in ("conv2d", "conv2d_grad"):
            continue
        computed = [tensor for tensor in op.reads if not tensor.name]
        if len(computed) < (1 if kind == "conv2d" else 2):  # of a parameter: nothing of a batch is kept
            continue
        image, *gradient = computed
        weights = sum(tensor.size() for tensor in op.reads if tensor.name)
        if kind == "conv2d":
            kept += _in_layout(image) + weights
            copies += 2 * op.writes[0].size()
        else:
            kept += _in_layout(image) + len(op.writes) * (_in_layout(gradient[-1]) + weights)
    return kept + constants.copies * copies


def _in_layout(image: program_view.Tensor) -> int:
    """Bytes of [B, C, H, W] with channels in blocks; up to three channels are not blocked."""
    channels = image.shape[1]
    return 0 if channels <= 3 else image.size() // channels * -(-channels // CHANNELS) * CHANNELS


def _detail(ops: list[program_view.Operation], program: TrainProgram, step: dict[str, int]) -> dict[str, int]:
    """The step's peak by the origin of the tensors: the backbone's forward pass, the head, what follows."""
    begin, end = _head(ops, *program.names(Role.STEP))
    stage = {tensor.key: 0 if place < begin else 1 if place < end else 2
             for place, op in reversed(list(enumerate(ops))) for tensor in op.writes}  # fmt: skip
    names = ("activations", "rows, logits, gathered features", "gradients and updates")
    found = dict.fromkeys(names, 0)
    for key, size in step.items():
        found[names[stage.get(key, 0)]] += size
    return found


def _head(ops: list[program_view.Operation], counter: str) -> tuple[int, int]:
    """The indices of the operations at which the head begins (it increments the variable ``counter``) and at which the
    backward pass of the backbone begins."""
    steps = [place for place, op in enumerate(ops) if op.kind == "increment"]
    begin = next(place for place in steps if ops[place].writes[0].name == counter)
    forward = {tensor.key for op in ops[:begin] if op.kind not in ("data", "parameter") for tensor in op.writes}
    reads = [(place, tensor.key) for place, op in enumerate(ops[begin:], begin) for tensor in op.reads]
    reads = [(place, key) for place, key in reads if key in forward]
    feature = reads[0][1]
    return begin, next((place for place, key in reads if key != feature), len(ops))
