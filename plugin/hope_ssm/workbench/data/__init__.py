"""The data of the workbench: data sets by name, and of your own; what a data set is; loaders."""

from hope_ssm.workbench.data.registry import DATASETS, make_splits, register
from hope_ssm.workbench.data.splits import Splits, pad, pad_pairs, stack

__all__ = ["DATASETS", "Splits", "make_splits", "pad", "pad_pairs", "register", "stack"]
