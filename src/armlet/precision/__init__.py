"""Measures the cost of rounding the input of `down` to few bits, and of methods that reduce it."""

from armlet.precision.result import Precision as Precision
from armlet.precision.run import quantize as quantize
