"""The Hankel operator of a system, past inputs to future outputs: its singular values, norms, and what to cut."""

from hope_ssm.hankel.bounds import markov_perturbation_bound, state_space_perturbation_bound
from hope_ssm.hankel.diagonal import diagonal_singular_values
from hope_ssm.hankel.gramians import h2_norm, state_space_singular_values
from hope_ssm.hankel.matrix import hankel_matrix, hankel_singular_values
from hope_ssm.hankel.norms import h_infinity_norm, resolvent_norm
from hope_ssm.hankel.reduction import balanced_truncation, certificates, smallest_orders
from hope_ssm.hankel.response import effective_rank, memory_length, numerical_rank, response_singular_values
from hope_ssm.hankel.state_space import StateSpace

__all__ = [
    "StateSpace",
    "balanced_truncation",
    "certificates",
    "diagonal_singular_values",
    "effective_rank",
    "h2_norm",
    "h_infinity_norm",
    "hankel_matrix",
    "hankel_singular_values",
    "markov_perturbation_bound",
    "memory_length",
    "numerical_rank",
    "resolvent_norm",
    "response_singular_values",
    "smallest_orders",
    "state_space_perturbation_bound",
    "state_space_singular_values",
]
