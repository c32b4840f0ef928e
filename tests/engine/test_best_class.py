"""The best class travels beside the embedding as float32, to the last label."""

from __future__ import annotations

import numpy as np

from plsc.engine.inference import best_class
from plsc.serving.classification import TopClasses


def test_what_is_packed_is_unpacked():
    rng = np.random.default_rng(1)
    embedding, scores = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(6, 300)).astype(np.float32)
    rows = best_class.pack(embedding, scores)
    assert rows.dtype == np.float32 and rows.shape == (6, 4 + best_class.COLUMNS)
    found, label, score = best_class.unpack(rows)
    np.testing.assert_array_equal(found, embedding)
    np.testing.assert_array_equal(label, scores.argmax(axis=1))
    np.testing.assert_array_equal(score, scores.max(axis=1))


def test_labels_that_float32_does_not_hold(monkeypatch):
    labels = np.array([[0], [65535], [65536], [2**24 + 1], [2**31 - 2]], np.int64)
    score = np.ones((5, 1), np.float32)
    monkeypatch.setattr(best_class, "top_classes", lambda scores, k, names: TopClasses(labels, score, None))
    rows = best_class.pack(np.zeros((5, 2), np.float32), score)
    np.testing.assert_array_equal(best_class.unpack(rows)[1], labels[:, 0])
