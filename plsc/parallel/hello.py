"""How ranks know one another: the first message of a connection, and what rank 0 answers.

Ranks of one run have the same list of endpoints, which a stranger does not know by chance, and the same PLSC_TOKEN
where it is set. Only a hash of both is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Mapping
from typing import Any

from plsc.parallel.environment import Environment

PROTOCOL = 1
TOKEN = "PLSC_TOKEN"
ENDED = "ended"  # in the hello of a launcher: why its rank has ended


def run_id(env: Environment, environ: Mapping[str, str] | None = None) -> str:
    """What the ranks of a run have in common, as a hash."""
    token = (os.environ if environ is None else environ).get(TOKEN, "")
    key, run = token.encode("utf-8", "surrogateescape"), "\n".join(env.endpoints).encode()
    return hmac.new(key, run, hashlib.sha256).hexdigest()


def hello(env: Environment) -> dict[str, Any]:
    """The first message of a rank to rank 0."""
    who = {"rank": env.rank, "host": socket.gethostname()[:100], "process": os.getpid()}
    return {"plsc": PROTOCOL, "run": run_id(env), **who}


def refusal(message: Mapping[str, Any], env: Environment) -> str:
    """Why the rank that sent a hello is not one of the run of rank 0, whose environment is ``env``; "" if it is one."""
    if message.get("plsc") != PROTOCOL:
        theirs = str(message.get("plsc"))[:20]
        return f"rank 0 speaks version {PROTOCOL} of the protocol, this rank {theirs}: use one version of PLSC"
    if not hmac.compare_digest(str(message.get("run")).encode(), run_id(env).encode()):
        return (
            f"rank 0 belongs to another run: its list of endpoints or its {TOKEN} is not that of this rank; give each "
            "run ports of its own, and all ranks of a run the same variables"
        )
    return "" if 1 <= claimed_rank(message) < env.world_size else f"its rank must be in [1, {env.world_size})"


def claimed_rank(message: Mapping[str, Any]) -> int:
    """The rank in a hello; -1 where it is no number of one."""
    rank = message.get("rank")
    return rank if type(rank) is int and 0 <= rank < 2**31 else -1
