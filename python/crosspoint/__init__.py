"""Crosspoint: moves the tokens of mixture-of-experts models between ranks.

``dispatch`` sends tokens to the ranks that hold their experts, ``combine`` brings the outputs home, weighted and summed;
both have exact backward passes. Ranks are processes of MPI (:func:`world`, :meth:`Fabric.of`) or threads of this one
(:func:`simulate`). docs/python.md is the tutorial; ``crosspoint.torch`` and ``crosspoint.jax`` have functions for PyTorch and
JAX.
"""

from ._errors import Code, CrosspointError
from ._exchange import Exchange, Handle, Pending, Statistics, Traffic
from ._fabric import Fabric, simulate, world
from ._library import version as __version__

__all__ = [
    "Code",
    "CrosspointError",
    "Exchange",
    "Fabric",
    "Handle",
    "Pending",
    "Statistics",
    "Traffic",
    "simulate",
    "world",
]
