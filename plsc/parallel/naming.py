"""Ranks in messages: short also for a thousand of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MOST_SPANS, _MOST_HOSTS = 8, 5


def host_of(endpoint: str) -> str:
    """The host of host:port, without the brackets of an IPv6 address."""
    return endpoint.rsplit(":", 1)[0].strip("[]")


def spans(ranks: Iterable[int]) -> str:
    """ "0, 3 to 7, 9" for a sorted list of ranks."""
    found: list[list[int]] = []
    for rank in ranks:
        if found and rank == found[-1][1] + 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    words = [str(first) if first == last else f"{first} to {last}" for first, last in found]
    left = sum(last - first + 1 for first, last in found[_MOST_SPANS:])
    return ", ".join(words[:_MOST_SPANS]) + (f" and {left} more" if left else "")


def name_ranks(ranks: Iterable[int], endpoints: Sequence[str]) -> str:
    """ "rank(s) 8 to 15 (10.0.0.2), 16 (10.0.0.3)"."""
    by_host: dict[str, list[int]] = {}
    for rank in ranks:
        by_host.setdefault(host_of(endpoints[rank]), []).append(rank)
    words = [f"{spans(each)} ({host})" for host, each in by_host.items()]
    left = len(words) - _MOST_HOSTS
    return "rank(s) " + ", ".join(words[:_MOST_HOSTS]) + (f" and those of {left} more machines" if left > 0 else "")
