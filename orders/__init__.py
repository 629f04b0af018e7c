"""Orders: which cell of a token lattice is decoded when.

Knows lattices, rankings with ties, paces that cut a ranking into steps, and the plans that result. Refuses to know
torch, models, clocks and files of results; numpy is all it needs.

    ranking  = order(lattice)       raster, radial, halton, ... (one family a file, below)
    plan     = ranking, cut         native groups, or step sizes from a paper's law
    tax      = field(plan)          what a plan costs on a Gaussian field, before any training

`make_plan("radial:width=2@native", Grid(16, 16))` makes a plan; `register_order` adds an order.
"""

from orderbench.orders import raster as raster  # noqa: I001 (the table of contents, in reading order)
from orderbench.orders import spiral as spiral
from orderbench.orders import radial as radial
from orderbench.orders import parts as parts
from orderbench.orders import curves as curves
from orderbench.orders import scatter as scatter
from orderbench.orders import locality as locality
from orderbench.orders import designed as designed
from orderbench.orders import scales as scales
from orderbench.orders.errors import BenchError as BenchError
from orderbench.orders.field import Field as Field
from orderbench.orders.tax import common_pace as common_pace
from orderbench.orders.tax import parallel_tax as parallel_tax
from orderbench.orders.tax import predicted_tax as predicted_tax
from orderbench.orders.tax import rank_orders as rank_orders
from orderbench.orders.tax import tax_by_step as tax_by_step
from orderbench.orders.tax import walk_tax as walk_tax
from orderbench.orders.lattice import Grid as Grid
from orderbench.orders.lattice import Lattice as Lattice
from orderbench.orders.lattice import Pyramid as Pyramid
from orderbench.orders.lattice import parse_lattice as parse_lattice
from orderbench.orders.order import get_order as get_order
from orderbench.orders.order import order_names as order_names
from orderbench.orders.order import register_order as register_order
from orderbench.orders.pace import Pace as Pace
from orderbench.orders.plan import Plan as Plan
from orderbench.orders.plan import draw as draw
from orderbench.orders.plan import make_plan as make_plan
from orderbench.orders.ranking import Ranking as Ranking
from orderbench.orders.registry import include_file as include_file
