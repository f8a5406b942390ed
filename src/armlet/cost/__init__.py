"""Measures the time that ARM costs."""

from armlet.cost.result import Cost as Cost
from armlet.cost.run import bench as bench
