"""The running programs of one rank: variables in memory, steps, and reading and writing the rows of the shard."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import paddle

from plsc.backend import program_view, static
from plsc.backend.cpu import map_large_blocks, use_huge_pages
from plsc.backend.onednn import clear_cache
from plsc.checkpoint import TOUCHED, TensorSpec
from plsc.engine.program.past import Past
from plsc.engine.program.programs import TrainProgram
from plsc.engine.program.results import VARIABLE, Reading, StepResults
from plsc.engine.program.scopes import device_place, make_executor, make_scope
from plsc.engine.program.variables import Role
from plsc.errors import PeerError, TrainingError, first_line
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from plsc.rows.history import RowHistory
from plsc.rows.shard_rows import SampledRows
from plsc.rows.storage import ClassTable, RowTable

# Rows that are saved, loaded or brought up to date at a time, 8 MB of 512 numbers: several copies exist meanwhile, and
# 65,536 rows, which took no less time, cost 1.2 GB beyond the weights (docs/history.md).
BLOCK_ROWS = 4096
DTYPES = {"float32": "F32", "int32": "I32"}  # of tensors in memory, and what they are called in a checkpoint


class Session:
    """Executor, scope and training program of one rank. ``reading``: how the results of its steps are read."""

    def __init__(self, program: TrainProgram, env: Environment, seed: int, reading: Reading | None = None):
        self.program = program
        self.env = env
        self.scope, self._free = make_scope(self)
        self.executor = make_executor(env)
        self.reading = reading or Reading()
        self._steps, self._ran = 0, []
        self._number: int | None = None  # of the last step, as the program counts
        self._seed = seed
        self._past = Past(program, lambda: int(self._read(program.optimizer_count)[0]), self.reading.ahead)
        self._blocks = _BlockPrograms(program)
        self.class_weights: Any = None  # plsc.engine.training.class_weights.ClassWeights, if the settings name them

    def start(self, group: Group) -> None:
        """Initialise all variables and check that replicated variables are equal on every rank."""
        if not self.env.on_gpu:
            use_huge_pages(self.program.rows.num_bytes)
        paddle.seed(self._seed)
        self.run(self.program.startup, {}, [])
        digests = group.all_gather(self.checksum())
        if len(set(digests)) > 1:
            raise TrainingError(
                f"the ranks start with different backbones ({digests}): initial weights must depend on the seed only"
            )

    def step(
        self, number: int, inputs: dict[str, np.ndarray], learning_rate: float, stop: bool = False
    ) -> StepResults:
        """Start a training step; its results (loss, stop, acc1, acc5, skipped) are waited for where they are used.

        ``stop``: this rank is to stop; the result of that name is above 0 on all ranks if any rank is to stop.
        """
        if self._past.full:
            self.bring_rows_up_to_date()
        feed = {**inputs, "learning_rate": np.array([learning_rate], np.float32)}
        feed["stop"] = np.array([stop], np.float32)
        if self.class_weights is not None:
            feed["class_weight"] = self.class_weights.of(inputs["label"])
        feed.update(self._past.feeds())
        if self._number is None:
            self._number = int(self._read(self.program.names(Role.STEP)[0])[0])
        self._number += 1
        own_number = self._number
        # dropout draws from Paddle's generator: seeded by the step, a resumed run draws what it would have drawn
        paddle.seed(step_seed(self._seed, number, self.env.rank))
        self._steps += 1
        sent = self.reading.copies.send(feed)
        self.run(self.program.main, sent.feed, [])
        read = self.reading.copies.begin_read(self._tensor(VARIABLE), sent)
        results = StepResults(self.program.result_names, lambda: self._results(read, own_number))
        self._past.add(results, learning_rate)
        return results

    def _results(self, read: Callable[[], np.ndarray], own_number: int) -> np.ndarray:
        """What ``read`` returns, which must be of the step with this number in the program."""
        try:
            found, *results = read()
        except (RuntimeError, OSError, ValueError) as error:
            raise _wrap_error(error, self.env) from error
        if found != own_number:
            raise TrainingError(
                f"the results of step {own_number} of the program were read when it was at {found:g}, so they are "
                "those of another step; set late_results: never, and report this with the version of Paddle and the GPU"
            )
        return np.array(results)

    @property
    def history(self) -> RowHistory | None:
        """The steps that rows have missed, or None where each step updates every row."""
        return self._past.history

    def run(self, program, feed: dict, fetches: list) -> list[np.ndarray]:
        """Run a program in this session's variables."""
        first = program is not self.program.startup and program not in self._ran
        if first:
            self._ran.append(program)
        with paddle.static.scope_guard(self.scope), map_large_blocks() if first else contextlib.nullcontext():
            try:
                return self.executor.run(program, feed=feed, fetch_list=fetches)
            except (RuntimeError, OSError, ValueError) as error:
                raise _wrap_error(error, self.env) from error

    def close(self) -> None:
        """Free all variables, and let go what oneDNN keeps when the executor goes; nothing works after it."""
        clear_cache(program_view.count_with_blocks(self.program.main) * self._steps)
        self._free()

    # --- replicated variables ---

    def replicated(self) -> dict[str, np.ndarray]:
        """Copies of the variables that are the same on every rank, by the names that they have in a checkpoint."""
        return {variable.stored: self._read(variable.name) for variable in self.program.variables}

    def replicated_specs(self) -> list[TensorSpec]:
        """Their names, types and shapes."""
        return [TensorSpec.of(name, array) for name, array in self.replicated().items()]

    def load_replicated(self, arrays: dict[str, np.ndarray]) -> None:
        """Set the given variables; names and shapes have been checked."""
        self._number = None
        self._past.forget_count()
        for variable in self.program.variables:
            array = arrays.get(variable.stored)
            if array is not None:
                self._tensor(variable.name).set(array, device_place(self.env))

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Copies of the variables of these names, by their names in the program."""
        return {name: self._read(name) for name in names}

    def _read(self, name: str) -> np.ndarray:
        return np.array(self._tensor(name))

    def _tensor(self, name: str) -> Any:
        return self.scope.find_var(name).get_tensor()

    def checksum(self) -> str:
        """The checksum of what must be equal on all ranks, with the rows where each rank holds all of them."""
        checksum = 0
        if self.env.world_size == 1:
            return ""  # no other rank to compare with
        for name in self.program.replicated:
            checksum = zlib.crc32(_without_negative_zero(self._read(name)), checksum)
        if not self.program.spec.model_parallel:
            for _, _, rows in self.blocks():
                checksum = zlib.crc32(_without_negative_zero(rows), checksum)
        return f"{checksum:08x}"

    # --- the rows of this rank's classes (a ShardSource) ---

    @property
    def rows_pending(self) -> bool:
        """True where stored rows may not be up to date."""
        return self.history is not None and self.history.steps > 0

    def tensors(self) -> list[TensorSpec]:
        """The tensors of the shard that a checkpoint stores."""
        num_local = self.program.shard.num_local
        touched = [TensorSpec(TOUCHED, "I64", (num_local,))] if self.rows_pending else []
        tables = self.program.tables.items()
        return touched + [TensorSpec(name, DTYPES[table.dtype], (num_local, table.width)) for name, table in tables]

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """(tensor name, first row, rows), each tensor in blocks of rows upwards, as they are stored."""
        if self.rows_pending:
            touched = self._read(self.program.rows.touched).reshape(-1)
            for index in self._indices():
                yield TOUCHED, int(index[0]), touched[index]
        for name in self.program.tables:
            for index in self._indices():
                yield name, int(index[0]), self._blocks.read(self, name, index)

    def weights(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) of the weight, in blocks of rows upwards, as they are stored."""
        for index in self._indices():
            yield int(index[0]), self._blocks.read(self, "weight", index)

    def load_rows(self, blocks: Iterable[tuple[str, int, np.ndarray]]) -> None:
        """Set all rows of the shard from (tensor name, first row, rows): up to date, or with ``touched`` among them, of
        a history that is then to resume."""
        touched = np.zeros((self.program.shard.num_local, 1), np.int64)
        for name, first, rows in blocks:
            if name == TOUCHED:
                touched[first : first + len(rows), 0] = rows
                continue
            index = np.arange(first, first + len(rows), dtype=np.int64)
            self._blocks.write(self, name, index, rows)
        if self.history is not None:
            self.history.restart()
            self._tensor(self.program.rows.touched).set(touched, device_place(self.env))

    def set_rows(self, name: str, index: np.ndarray, rows: np.ndarray) -> None:
        """Set the rows ``index`` [n] int64 of the shard, no two of them the same."""
        self._blocks.write(self, name, index, rows)

    def bring_rows_up_to_date(self) -> None:
        """Apply the pending updates, so that every stored row is as with the dense optimizer. This rounds, so it may
        only depend on the steps: otherwise a run would change with the times of its saves."""
        if not self.rows_pending:
            return
        table = self.history.table()
        for index in self._indices():
            self._blocks.catch_up(self, index, table)
        self.history.restart()

    def block_programs(self) -> list[Any]:
        """The programs that process BLOCK_ROWS rows at a time, for memory estimates."""
        return self._blocks.programs()

    def _indices(self) -> Iterator[np.ndarray]:
        num_local = self.program.shard.num_local
        for first in range(0, num_local, BLOCK_ROWS):
            yield np.arange(first, min(first + BLOCK_ROWS, num_local), dtype=np.int64)


class _BlockPrograms:
    """Small programs that gather and scatter rows of the shard in place."""

    def __init__(self, program: TrainProgram):
        self._programs: dict[str, tuple] = {}
        for name, table in program.tables.items():
            self._programs[name] = self._access(table)
        self._catch_up = None if program.rows.touched is None else self._catching_up(program.rows)

    def programs(self) -> list[Any]:
        access = [program for read, write, _ in self._programs.values() for program in (read, write)]
        return access if self._catch_up is None else [*access, self._catch_up]

    def read(self, session: Session, name: str, index: np.ndarray) -> np.ndarray:
        read, _, value = self._programs[name]
        return session.run(read, {"index": index}, [value])[0]

    def write(self, session: Session, name: str, index: np.ndarray, rows: np.ndarray) -> None:
        session.run(self._programs[name][1], {"index": index, "rows": rows}, [])

    def catch_up(self, session: Session, index: np.ndarray, table: np.ndarray) -> None:
        feed = {"index": index, "row_table": table, "window_step": np.array([session.history.steps], np.int64)}
        session.run(self._catch_up, feed, [])

    @staticmethod
    def _access(table: RowTable | ClassTable) -> tuple:
        read, write = paddle.static.Program(), paddle.static.Program()
        with static.building(read, paddle.static.Program()):
            value = table.in_current_program().read(paddle.static.data("index", [-1], "int64"))
        with static.building(write, paddle.static.Program()):
            index = paddle.static.data("index", [-1], "int64")
            table.in_current_program().write(index, paddle.static.data("rows", [-1, table.width], table.dtype))
        return read, write, value

    @staticmethod
    def _catching_up(rows: SampledRows):
        main = paddle.static.Program()
        with static.building(main, paddle.static.Program()):
            rows.append_bring_up_to_date()
        return main


def _without_negative_zero(values: np.ndarray) -> np.ndarray:
    """``values`` with 0 for -0. Of the numbers that Paddle draws some are 0, with either sign on either rank: which one
    depends on where the array lies in memory."""
    return np.ascontiguousarray(values + values.dtype.type(0))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of Paddle's generator in one step of one rank."""
    return zlib.crc32(f"{seed}/{step}/{rank}".encode()) & 0x7FFFFFFF


def _wrap_error(error: Exception, env: Environment) -> TrainingError:
    text = f"the program stopped: {first_line(error)}"
    return PeerError(text) if env.world_size > 1 else TrainingError(text)
