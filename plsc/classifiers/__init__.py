"""The classifier: sampling, the sharded softmax and its gradients."""

from plsc.classifiers.large_scale_classifier import LargeScaleClassifier
from plsc.classifiers.spec import ClassifierSpec, Shard, StepContext
from plsc.classifiers.step import StepOutput, classify

__all__ = ["ClassifierSpec", "LargeScaleClassifier", "Shard", "StepContext", "StepOutput", "classify"]
