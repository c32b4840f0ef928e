"""The classifier: margins, sampling, the sharded softmax and its gradients."""

from plsc.classifiers.head import RowGradients, RowProduct
from plsc.classifiers.large_scale_classifier import LargeScaleClassifier
from plsc.classifiers.step import ClassifierSpec, Shard, StepOutput, classify

__all__ = ["ClassifierSpec", "LargeScaleClassifier", "RowGradients", "RowProduct", "Shard", "StepOutput", "classify"]
