"""The best class of an image beside its embedding, as columns of float32, so that both are gathered together."""

from __future__ import annotations

import numpy as np

from plsc.serving.classification import top_classes

COLUMNS = 3  # label // SPLIT, label % SPLIT, score
SPLIT = 1 << 16  # float32 holds whole numbers up to 2**24, labels go up to 2**31


def pack(embedding: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """embedding [B, E], scores [B, C] -> float32 [B, E + COLUMNS]."""
    best = top_classes(scores, 1, None)
    return np.concatenate([embedding, best.label // SPLIT, best.label % SPLIT, best.score], axis=1, dtype=np.float32)


def unpack(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(embedding [B, E], label int64 [B], score float32 [B]) of what ``pack`` made."""
    high, low = rows[:, -3].astype(np.int64), rows[:, -2].astype(np.int64)
    return rows[:, :-COLUMNS], high * SPLIT + low, rows[:, -1]
