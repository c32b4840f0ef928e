"""Verification, identification and retrieval: the numbers that judge embeddings, and how they are shown."""

from plsc.evaluation.metric import DISTRACTOR, Embedded, Metric, register_metric

__all__ = ["DISTRACTOR", "Embedded", "Metric", "register_metric"]
