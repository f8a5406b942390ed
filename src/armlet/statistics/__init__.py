"""Every interval, test and measure of a distribution."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
