"""Scales: a pyramid level by level, from coarse to fine, a whole level at a time.

VAR, "Visual Autoregressive Modeling" (arXiv 2404.02905): all cells of a level are predicted together, given every
coarser level. Other orders also take a pyramid level by level, but rank the cells within each level.
"""

from __future__ import annotations

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import Lattice, Pyramid
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


@register_order("scales", paper="VAR, arXiv 2404.02905", idea="a pyramid from coarse to fine, a whole level at a time")
def scales(lattice: Lattice) -> Ranking:
    """
    >>> from orderbench.orders import Pyramid, draw
    >>> print(draw("scales", Pyramid.parse("1/2")))
    0
    <BLANKLINE>
    1 1
    1 1
    """
    if not isinstance(lattice, Pyramid):
        raise BenchError(
            f"scales decodes the levels of a pyramid, and a {lattice} grid has one; give a pyramid, as in "
            f"--grid 1/2/4/8"
        )
    return Ranking(lattice.coords[:, 0])
