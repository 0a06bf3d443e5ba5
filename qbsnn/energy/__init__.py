"""Operation counts over real data, and estimates of the energy they cost. No Lightning."""

from qbsnn.energy.activity import Activity, ActivityMeter
from qbsnn.energy.count import Counts, StageCounts, count_operations
from qbsnn.energy.estimate import estimate
from qbsnn.energy.fanout import fanout
from qbsnn.energy.price import MODELS, Footprint, Model, price

__all__ = [
    "MODELS",
    "Activity",
    "ActivityMeter",
    "Counts",
    "Footprint",
    "Model",
    "StageCounts",
    "count_operations",
    "estimate",
    "fanout",
    "price",
]
