"""The classifier: margins, sampling, the sharded softmax and its gradients."""

from plsc.classifiers.large_scale_classifier import LargeScaleClassifier
from plsc.classifiers.step import ClassifierSpec, Shard, StepOutput, classify

__all__ = ["ClassifierSpec", "LargeScaleClassifier", "Shard", "StepOutput", "classify"]
