"""Metrics of embeddings (verification, identification, retrieval) and their tables, plots and pages."""

from plsc.evaluation.metric import DISTRACTOR, Embedded, Metric, register_metric

__all__ = ["DISTRACTOR", "Embedded", "Metric", "register_metric"]
