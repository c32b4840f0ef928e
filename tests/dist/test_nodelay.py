"""Neither the control connections nor those of Paddle's key-value store hold small messages back, on either end."""

from __future__ import annotations

from tests.dist import ranks


def test_connections_send_at_once(tmp_path):
    parts = ranks.run("tests.dist.nodelay_cases:waiting", 3, tmp_path)
    # rank 0 has both ends of its own connection with the store, and one end of those of each other rank
    assert [[len(found) for found in part] for part in parts] == [[2, 4], [1, 1], [1, 1]]
    assert not any(any(found) for part in parts for found in part)
