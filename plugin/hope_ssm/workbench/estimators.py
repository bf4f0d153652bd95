"""HOPE as scikit-learn's estimators: sequences in, predictions out, trained by the workbench.

Axes: N sequences, L steps, d features, k numbers to predict.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hope_ssm.checks import check_positive_integer, check_share
from hope_ssm.extras import install_line
from hope_ssm.reporting.machine import quieten_lightning
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data.arrays import Sequences, collate_of, named
from hope_ssm.workbench.data.loaders import EvaluationLoader
from hope_ssm.workbench.data.seeding import generators, set_generators
from hope_ssm.workbench.data.splits import Splits
from hope_ssm.workbench.evaluation import load
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_array, check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError(
        f"HopeClassifier and HopeRegressor must have scikit-learn 1.6 or newer; {error}. {install_line('workbench')}"
    ) from None

_DEVICES = {"cuda": "gpu"}  # torch's names → Lightning's


class SequenceEstimator(BaseEstimator):
    """Sequences X ↦ predictions, by layers with a HOPE kernel: what ``HopeClassifier`` and ``HopeRegressor`` share.

    X is a list of arrays (L_i, d) or (L_i,) of any lengths, an array (N, L, d), or a table (N, L) of N sequences of one
    feature. ``fit`` sets ``validation_fraction`` of the sequences aside, trains in the workbench, stops early, and
    keeps the model of the best epoch. All of scikit-learn takes it: ``cross_val_score``, ``GridSearchCV``, pipelines.

    Args:
        kernel: a name of ``hope kernels``.
        d_model: width of the model.
        n_layers: number of layers.
        d_state: states per system, of the kernel.
        dropout: on every residual branch, at least 0 and below 1.
        decoder_mode: what the prediction is read from: ``"pool"`` (the mean of all steps, the classifier's default),
            ``"last"`` (the regressor's), ``"sum"`` or ``"first"``; None: the default.
        lr: learning rate at the start.
        weight_decay: of AdamW.
        batch_size: sequences per step.
        max_epochs: at most as many passes over the data.
        validation_fraction: share of the sequences, from 0 to 1 and at least one, that early stopping looks at.
        patience: epochs without a lower validation loss before training stops; None: never.
        standardize: bring every feature to mean 0 and variance 1, by the statistics of the training sequences.
        overrides: further lines of the command line, such as ``("model.norm=batch", "model.layer.lr.dt=0.01")``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, or another accelerator of Lightning.
        progress_bar: show one.
        random_state: a whole number makes fits repeatable; None draws one.

    Attributes:
        model_: the trained model, see ``hope_ssm.load``.
        history_: the metrics of every epoch, a list of mappings.
        n_features_in_: d; of a table L.

    Raises:
        TypeError, ValueError: an option that the workbench refuses; sequences that are empty, not numbers, not finite,
            or with other features than in ``fit``.
    """

    _task: str
    _decoder_mode: str
    n_features_in_: int

    def __init__(
        self,
        *,
        kernel: str = "hope",
        d_model: int = 64,
        n_layers: int = 2,
        d_state: int = 64,
        dropout: float = 0.0,
        decoder_mode: str | None = None,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        batch_size: int = 32,
        max_epochs: int = 50,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        standardize: bool = True,
        overrides: Sequence[str] = (),
        device: str = "auto",
        progress_bar: bool = False,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.d_model = d_model
        self.n_layers = n_layers
        self.d_state = d_state
        self.dropout = dropout
        self.decoder_mode = decoder_mode
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.overrides = overrides
        self.device = device
        self.progress_bar = progress_bar
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _sequences(self, X: Any, reset: bool) -> list[np.ndarray]:
        """Arrays (L_i, d) of a list of arrays, of an array (N, L, d), or of a table (N, L) of one feature."""
        if isinstance(X, (list, tuple)) and len(X) and all(np.ndim(x) in (1, 2) for x in X) and not _is_table(X):
            arrays = [check_array(x, ensure_2d=False, dtype=np.float64, input_name="X") for x in X]
            xs = [x.reshape(-1, 1) if x.ndim == 1 else x for x in arrays]
            self._check_features({x.shape[1] for x in xs}, reset)
        elif np.asarray(X).ndim == 3:
            xs = list(check_array(X, allow_nd=True, dtype=np.float64, input_name="X"))
            self._check_features({xs[0].shape[1]}, reset)
        else:
            xs = [row.reshape(-1, 1) for row in validate_data(self, X, dtype=np.float64, reset=reset)]
        return xs

    def _check_features(self, found: set[int], reset: bool) -> None:
        wanted = found if reset else {self.n_features_in_}
        if len(found) > 1 or found != wanted:
            listed = " and ".join(map(str, sorted(found)))
            raise ValueError(
                f"all sequences must have {'one number of' if reset else min(wanted)} features per step; got {listed}."
            )
        self.n_features_in_ = min(found)

    def _fit(self, xs: list[np.ndarray], ys: np.ndarray, d_output: int, stratify: Any) -> None:
        """Train on part of the sequences, stop by the others, and keep the best model."""
        if len(xs) < 2:
            raise ValueError(f"fit must have at least 2 sequences, one to validate on; got n_samples = {len(xs)}.")
        check_share("validation_fraction", self.validation_fraction)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held = min(len(xs) - 1, max(1, round(self.validation_fraction * len(xs))))
        possible = stratify is not None and np.bincount(stratify).min() >= 2 and held >= stratify.max() + 1
        parts = train_test_split(
            np.arange(len(xs)), test_size=held, random_state=seed, stratify=stratify if possible else None
        )
        steps = np.concatenate([xs[i] for i in parts[0]])
        self.mean_, self.scale_ = steps.mean(0), steps.std(0)
        if not self.standardize:
            self.mean_, self.scale_ = np.zeros_like(self.mean_), np.ones_like(self.scale_)
        self.scale_[self.scale_ == 0] = 1.0
        training, validation = (Sequences([self._scaled(xs[i]) for i in part], ys[part]) for part in parts)
        splits = Splits(training, validation, validation, xs[0].shape[1], d_output, collate=collate_of(xs))
        with tempfile.TemporaryDirectory(prefix="hope-") as folder, named(splits) as name:
            config = compose(self._overrides(name, seed, len(training), max(map(len, xs))))
            before = generators()
            try:
                quieten_lightning()
                train(config, folder, callbacks=None if self.progress_bar else [])
            finally:
                set_generators(before)
            self.model_ = load(folder)
            self.history_ = RunDirectory(Path(folder)).epochs

    def _overrides(self, dataset: str, seed: int, samples: int, longest: int) -> list[str]:
        stopping = [] if self.patience is None else [f"+callbacks.early_stopping.patience={self.patience}"]
        return [
            "pipeline=own", f"dataset._name_={dataset}", f"+dataset.__length={longest}", f"task={self._task}",
            "train.monitor=val/loss", "train.mode=min", "train.test=false", "train.tensorboard=false",
            "model=s4", f"kernel={self.kernel}", f"model.d_model={self.d_model}", f"model.n_layers={self.n_layers}",
            f"model.layer.d_state={self.d_state}", f"model.dropout={self.dropout}",
            f"decoder.mode={self.decoder_mode or self._decoder_mode}",
            f"optimizer.lr={self.lr}", f"optimizer.weight_decay={self.weight_decay}",
            f"loader.batch_size={min(check_positive_integer('batch_size', self.batch_size), samples)}",
            "loader.drop_last=false", f"trainer.max_epochs={self.max_epochs}",
            f"trainer.accelerator={_DEVICES.get(self.device, self.device)}",
            f"+trainer.enable_progress_bar={str(bool(self.progress_bar)).lower()}",
            f"train.seed={seed}", *stopping, *self.overrides,
        ]  # fmt: skip

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean_) / self.scale_

    @torch.inference_mode()
    def _outputs(self, X: Any) -> np.ndarray:
        """The model's outputs (N, k), float64."""
        check_is_fitted(self)
        xs = self._sequences(X, reset=False)
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        samples = Sequences([self._scaled(x) for x in xs], np.zeros(len(xs)))
        loader = EvaluationLoader(samples, seed=0, batch_size=self.batch_size, collate_fn=collate_of(xs))
        model, found = copy.deepcopy(self.model_).to(device).double(), []  # so that no batch changes another's digits
        for x, _, *context in loader:
            x = x.to(device, torch.float64)
            found.append(model(x, lengths=context[0]["lengths"] if context else None).cpu())
        return torch.cat(found).numpy()


def _is_table(X: Sequence[Any]) -> bool:
    """Whether nested lists are a table of numbers, or of texts to be refused, and not a list of arrays."""
    return not any(hasattr(x, "__array__") for x in X) and len({np.shape(x) for x in X}) == 1 and np.ndim(X[0]) == 1


class HopeClassifier(ClassifierMixin, SequenceEstimator):
    """p(class | x_1 … x_L) of a sequence: layers with a HOPE kernel, then a softmax of the mean over the steps.

    For the options, and what X may be, see ``SequenceEstimator``.

    Attributes:
        classes_: the labels, in the order of the columns of ``predict_proba``.
    """

    _task, _decoder_mode = "multiclass_classification", "pool"

    def fit(self, X: Any, y: Any) -> HopeClassifier:
        """Train on sequences X and their labels y (N,); see the class."""
        xs = self._sequences(X, reset=True)
        labels = column_or_1d(_target(self, y, xs), warn=True)
        check_classification_targets(labels)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least two classes; got one class, {self.classes_[0]!r}.")
        self._fit(xs, indices.astype(np.int64), len(self.classes_), indices)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of all classes, (N, classes)."""
        return torch.from_numpy(self._outputs(X)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of every sequence, (N,)."""
        best = self._outputs(X).argmax(-1)
        return self.classes_[best]


class HopeRegressor(RegressorMixin, SequenceEstimator):
    """ŷ (k,) of a sequence x_1 … x_L: layers with a HOPE kernel, then a linear map of the last step.

    For the options, and what X may be, see ``SequenceEstimator``. y is (N,) or (N, k). Targets are brought to mean 0
    and variance 1 for the training, by the statistics of all given, and back in ``predict``.
    """

    _task, _decoder_mode = "regression", "last"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> HopeRegressor:
        """Train on sequences X and numbers y (N,) or (N, k); see the class."""
        xs = self._sequences(X, reset=True)
        y = check_array(_target(self, y, xs), ensure_2d=False, dtype=np.float64, input_name="y")
        self.y_shape_ = y.shape[1:]
        table = y.reshape(len(y), -1)
        self.y_mean_, self.y_scale_ = table.mean(0), table.std(0)
        self.y_scale_[self.y_scale_ == 0] = 1.0
        self._fit(xs, ((table - self.y_mean_) / self.y_scale_).astype(np.float32), table.shape[1], None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the numbers of every sequence, (N,) or (N, k) as in ``fit``."""
        outputs = self._outputs(X)
        found = outputs * self.y_scale_ + self.y_mean_
        return found.reshape(len(found), *self.y_shape_)


def _target(estimator: BaseEstimator, y: Any, xs: list[np.ndarray]) -> Any:
    """Return y if it has a target for every sequence; otherwise raise."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None: give a target per sequence."
        )
    check_consistent_length(xs, y)
    return y
