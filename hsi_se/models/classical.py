"""Classifiers of single pixels as torch modules that map patches to logits.

scikit-learn fits them, and the fitted values are kept as plain tensors. Bundles therefore contain no pickle,
and the classifiers are evaluated, mapped and saved like networks.
Axes: n patches, k components, p × p pixels, C classes.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hsi_se.config.model import Lda, PixelClassifier, Svm
from hsi_se.system.forms import Form


class CentrePixelClassifier(nn.Module, ABC):
    """The base class: uses only the centre of the p × p pixels, and keeps its state in buffers."""

    def __init__(self, tensors: dict[str, Tensor], *, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def forward(self, patches: Tensor) -> Tensor:
        centre = self.patch_size // 2
        return self.score(patches[:, 0, :, centre, centre])  # (n, k) to (n, C)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per patch."""
        return 0

    @classmethod
    @abstractmethod
    def of(cls, fitted: Any, *, num_classes: int, patch_size: int) -> Self:
        """Converts what `evaluation.baselines.fit_pixel_classifier` returns for classes 0..C-1."""

    @abstractmethod
    def score(self, spectra: Tensor) -> Tensor:
        """Returns the logits `(n, C)` of spectra `(n, k)`."""


class SupportVectorMachine(CentrePixelClassifier):
    """A one-vs-one support vector machine; logits are votes per class, with ties broken by distance.

    The logits equal scikit-learn's `decision_function` of shape `ovr`; classes without training pixels get the lowest.
    """

    support: Annotated[Tensor, Form("vectors components", "float32")]
    weights: Annotated[Tensor, Form("vectors pairs", "float32")]
    intercept: Annotated[Tensor, Form("pairs", "float32")]
    gamma: Annotated[Tensor, Form("", "float32")]
    classes: Annotated[Tensor, Form("present", "int64", index_of="classes")]  # those with training pixels
    num_classes: Annotated[Tensor, Form("", "int64", high="classes")]

    @classmethod
    def of(cls, fitted: Any, *, num_classes: int, patch_size: int) -> Self:
        count = len(fitted.classes_)
        one, other = np.triu_indices(count, 1)  # of each pair
        owner = np.repeat(np.arange(count), fitted.n_support_)[:, None]  # the class of each support vector
        weights = (owner == one) * fitted.dual_coef_[other - 1].T + (owner == other) * fitted.dual_coef_[one].T
        sign = -1.0 if count == 2 else 1.0  # with two classes, scikit-learn flips the sign
        tensors = {
            "support": torch.tensor(fitted.support_vectors_, dtype=torch.float32),
            "weights": torch.tensor(sign * weights, dtype=torch.float32),
            "intercept": torch.tensor(sign * fitted.intercept_, dtype=torch.float32),
            "gamma": torch.tensor(float(fitted.gamma)),
            "classes": torch.tensor(fitted.classes_, dtype=torch.int64),
            "num_classes": torch.tensor(num_classes),
        }
        return cls(tensors, patch_size=patch_size)

    @property
    def macs(self) -> int:
        return self.support.numel() + self.weights.numel()

    def score(self, spectra: Tensor) -> Tensor:
        kernel = torch.exp(-self.gamma * torch.cdist(spectra, self.support).square())  # (n, s)
        decisions = kernel @ self.weights + self.intercept  # (n, pairs)
        count = len(self.classes)
        one, other = torch.triu_indices(count, count, offset=1, device=spectra.device)
        votes = spectra.new_zeros(len(spectra), count)
        votes = votes.index_add(1, one, (decisions > 0).to(votes)).index_add(1, other, (decisions <= 0).to(votes))
        distance = torch.zeros_like(votes).index_add(1, one, decisions).index_add(1, other, -decisions)
        votes = votes + distance / (3 * (distance.abs() + 1))
        logits = spectra.new_full((len(spectra), int(self.num_classes)), -1.0)
        return logits.index_copy(1, self.classes, votes)


class LinearDiscriminant(CentrePixelClassifier):
    """Linear discriminant analysis; logits are scikit-learn's `predict_log_proba`, but at least -1e4."""

    weights: Annotated[Tensor, Form("components classes", "float64")]
    intercept: Annotated[Tensor, Form("classes", "float64", has_gaps=True)]  # -inf without training pixels

    @classmethod
    def of(cls, fitted: Any, *, num_classes: int, patch_size: int) -> Self:
        scaler, lda = fitted[0], fitted[1]
        weights, intercept = np.zeros((num_classes, len(scaler.mean_))), np.full(num_classes, -np.inf)
        intercept[lda.classes_] = 0
        present = lda.classes_[-len(lda.coef_) :]  # of two classes, only the second has coefficients
        weights[present] = lda.coef_ / scaler.scale_
        intercept[present] = lda.intercept_ - weights[present] @ scaler.mean_
        tensors = {"weights": torch.tensor(weights.T), "intercept": torch.tensor(intercept)}
        return cls(tensors, patch_size=patch_size)

    @property
    def macs(self) -> int:
        return self.weights.numel()

    def score(self, spectra: Tensor) -> Tensor:
        return (spectra.double() @ self.weights + self.intercept).log_softmax(1).clamp(min=-1e4).to(spectra)


class ForestOfTrees(CentrePixelClassifier):
    """A random forest or extra trees; logits are the logarithms of scikit-learn's `predict_proba`."""

    feature: Annotated[Tensor, Form("trees nodes", "int64", index_of="components")]  # 0 for leaves
    threshold: Annotated[Tensor, Form("trees nodes", "float64")]
    branches: Annotated[Tensor, Form("trees nodes 2", "int64", index_of="nodes")]  # a leaf points to itself
    share: Annotated[Tensor, Form("trees nodes classes", "float32", low=0)]
    depth: Annotated[Tensor, Form("", "int64", low=0, high="nodes")]

    @classmethod
    def of(cls, fitted: Any, *, num_classes: int, patch_size: int) -> Self:
        trees = [tree.tree_ for tree in fitted.estimators_]
        shape = len(trees), max(tree.node_count for tree in trees)
        feature, threshold = np.zeros(shape, np.int64), np.zeros(shape, np.float64)
        branches, share = np.zeros((*shape, 2), np.int64), np.zeros((*shape, num_classes), np.float32)
        for place, tree in enumerate(trees):
            count = tree.node_count
            nodes = np.arange(count)
            is_leaf = tree.children_left < 0
            feature[place, :count] = np.where(is_leaf, 0, tree.feature)
            threshold[place, :count] = tree.threshold
            branches[place, :count, 0] = np.where(is_leaf, nodes, tree.children_left)
            branches[place, :count, 1] = np.where(is_leaf, nodes, tree.children_right)
            share[place, :count][:, fitted.classes_] = tree.value[:, 0]
        arrays = {"feature": feature, "threshold": threshold, "branches": branches, "share": share}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors["depth"] = torch.tensor(max(tree.max_depth for tree in trees))
        return cls(tensors, patch_size=patch_size)

    def score(self, spectra: Tensor) -> Tensor:
        tree = torch.arange(len(self.feature), device=spectra.device)  # (trees,)
        node = torch.zeros(len(spectra), len(tree), dtype=torch.int64, device=spectra.device)
        for _ in range(int(self.depth)):
            value = spectra.gather(1, self.feature[tree, node])  # (n, trees)
            is_right = (value.double() > self.threshold[tree, node]).long()
            node = self.branches[tree, node, is_right]
        shares = self.share[tree, node].mean(1)  # (n, C)
        return shares.clamp(min=1e-6).log()


def find_class(settings: PixelClassifier) -> type[CentrePixelClassifier]:
    return {Svm: SupportVectorMachine, Lda: LinearDiscriminant}.get(type(settings), ForestOfTrees)
