"""A rank for test_cuts.py that exchanges values and sends steps, without Paddle: python -m tests.hosts.steps FOLDER

FOLDER/rank<r>.txt gets a line for each exchange. Once FOLDER/idle exists, rank 0 does nothing, and the others wait.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from plsc.parallel.channel import Channel
from plsc.parallel.environment import Environment
from plsc.parallel.excepthook import install_excepthook
from plsc.parallel.joining import control_of


def main() -> None:
    install_excepthook()
    folder, env = Path(sys.argv[1]), Environment.from_launch()
    control = control_of(env)
    channel, step = Channel(control, "steps"), 0
    with open(folder / f"rank{env.rank}.txt", "w", buffering=1) as out:
        while True:
            while env.rank == 0 and (folder / "idle").exists():
                time.sleep(0.2)
            step += 1
            control.send_step(step)
            channel.exchange(b"")
            print(step, file=out)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
