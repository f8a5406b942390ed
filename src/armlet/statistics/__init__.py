"""Intervals, tests, and measures of a distribution."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
