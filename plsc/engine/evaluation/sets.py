"""The evaluation sets of a run, opened one at a time, and the metrics that each of them supports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Union

import numpy as np

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import ImageReader, normalise, read_test_sample
from plsc.engine.evaluation.data import number_of_samples, verification_files
from plsc.errors import DataError, PlscError
from plsc.evaluation.bin_file import PairSet
from plsc.evaluation.embeddings import combine_flip
from plsc.evaluation.identity_sets import AnySet, IdentitySet, load_set, too_few
from plsc.evaluation.metric import IDENTITIES, PAIRS, Embedded, Metric, supported_numbers
from plsc.evaluation.pair_sets import image_location

NO_EMBEDDINGS = np.zeros((0, 0))
NO_IDENTITIES = "it has pairs, no identities; use a folder of identities or a list of path<TAB>identity"


@dataclass(frozen=True)
class UnreadableSet:
    """A set that cannot be read on this rank, and why."""

    name: str
    reason: str


class UserTestSet:
    """A user's ``test_dataset``: labels are identities; samples 2i and 2i + 1 are pair i, "same" if their labels are
    equal.

    Each sample is read once, so the labels are known after ``set_labels``. kinds: what the metrics need, "pairs",
    "identities" or both.
    """

    name = "test_dataset"

    def __init__(self, dataset: Sequence, image_shape: tuple[int, int, int], kinds: Collection[str] = (PAIRS,)):
        self._dataset, self._shape, self._kinds = dataset, image_shape, kinds
        self.count = number_of_samples(dataset, PAIRS in kinds)
        self.issame: np.ndarray | None = None
        self.identities: np.ndarray | None = None
        self.labels: list[int] = []  # of the samples in the order in which this rank has read them

    def read(self, index: int) -> np.ndarray:
        """float32 [C, H, W]. Raises DataError that names the sample."""
        image, label = read_test_sample(self._dataset, index, self._shape)
        self.labels.append(int(label))
        return image

    def set_labels(self, labels: np.ndarray) -> None:
        """The labels of all samples, in order. Raises DataError where pairs are needed and are of one kind only."""
        self.identities = labels
        if PAIRS not in self._kinds:
            return
        self.issame = labels[::2] == labels[1::2]
        same = int(self.issame.sum())
        if same in (0, len(self.issame)):
            raise DataError(
                f"test_dataset: has {same} same and {len(self.issame) - same} different pairs; it needs both kinds "
                "(samples 2i and 2i + 1 are a pair, same if their labels are equal)"
            )


TestSet = Union[AnySet, UserTestSet]


def kinds_of(metrics: Sequence[Metric]) -> set[str]:
    """The kinds of labels that the metrics need."""
    return {metric.needs for metric in metrics}


def verification_sets(
    config: Config, user_objects: UserObjects, kinds: Collection[str]
) -> Iterator[TestSet | UnreadableSet]:
    """The evaluation sets, one at a time, so that only one is in memory."""
    if user_objects.test_dataset is not None:
        shape = tuple(config.model.image_shape)
        yield _load_or_explain(UserTestSet.name, lambda: UserTestSet(user_objects.test_dataset, shape, kinds))
        return
    for name in config.data.val_targets:
        yield _load_or_explain(name, lambda: load_set(verification_files(config, [name])[0], name, kinds))  # noqa: B023


def _load_or_explain(name: str, load: Callable[[], TestSet]) -> TestSet | UnreadableSet:
    try:
        return load()
    except Exception as error:  # a user's data set may raise anything
        return UnreadableSet(name, describe_error(error))


def num_images(found: TestSet) -> int:
    """The number of images to embed."""
    return found.count if isinstance(found, UserTestSet) else len(found.images)


def labels_of(found: TestSet, kind: str) -> Embedded | str:
    """The labels of a set, of the kind that a metric needs, without embeddings; or the reason why there are none."""
    if kind == PAIRS:
        if found.issame is None:
            return too_few(found) if isinstance(found, IdentitySet) else "it has no pairs"
        return Embedded(found.name, NO_EMBEDDINGS, issame=found.issame)
    identities = None if isinstance(found, PairSet) else found.identities
    return NO_IDENTITIES if identities is None else Embedded(found.name, NO_EMBEDDINGS, identities=identities)


def split_supported(metrics: Sequence[Metric], found: TestSet) -> tuple[list[Metric], dict[str, str]]:
    """(the metrics that a set supports, {another one: why it does not}). Raises DataError where it supports none."""
    good, skipped = [], {}
    for metric in metrics:
        labels = labels_of(found, metric.needs)
        if isinstance(labels, str):
            skipped[metric.name] = labels
        elif not supported_numbers(metric, labels):
            skipped[metric.name] = f"its {metric.needs} support none of {', '.join(metric.better)}"
        else:
            good.append(metric)
    if not good:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise DataError(f"{found.name}: no metric can be computed ({reasons}); change metrics, or remove the set")
    return good, skipped


def embedded_views(
    found: TestSet, kinds: Collection[str], plain: np.ndarray, mirrored: np.ndarray
) -> dict[str, Embedded]:
    """The inputs of the metrics, by kind. plain, mirrored [M, E]: features of all images. Raises DataError."""
    made: dict[str, Embedded] = {}
    whole = None
    for kind in (PAIRS, IDENTITIES):
        labels = labels_of(found, kind)
        if kind not in kinds or isinstance(labels, str):
            continue
        if kind == PAIRS and isinstance(found, IdentitySet):
            combined = combine_flip(plain[found.pair_images], mirrored[found.pair_images])
        else:
            combined = whole = combine_flip(plain, mirrored) if whole is None else whole
        made[kind] = replace(labels, embeddings=combined[0], xnorm=combined[1])
    return made


def reader(config: Config, found: TestSet) -> Callable[[int], np.ndarray]:
    """``read(index)``: an image of a set as input of the model, float32 [C, H, W]. Raises DataError that names it."""
    return found.read if isinstance(found, UserTestSet) else image_reader(config, found)


def image_reader(config: Config, found: AnySet) -> Callable[[int], np.ndarray]:
    """The same for a set of files."""
    pixels, std = ImageReader.from_config(config), config.data.pixel_std
    return lambda index: normalise(pixels(found.images[index], image_location(found, index)), std)


def describe_error(error: Exception) -> str:
    """One line, with the class of the error unless it is a PlscError."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PlscError) else f"{type(error).__name__}: {text}"
