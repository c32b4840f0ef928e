"""No connection of the ranks' key-value store holds small messages back, on either end and whenever it was made."""

from __future__ import annotations

from tests.dist import ranks


def test_connections_of_the_store_send_at_once(tmp_path):
    parts = ranks.run("tests.dist.nodelay_cases:waiting", 3, tmp_path)
    # rank 0 has both ends of its own connections, one or two, and one end of those of each other rank
    assert [[len(found) for found in part] for part in parts] == [[4, 8], [1, 2], [1, 2]]
    assert not any(any(found) for part in parts for found in part)
