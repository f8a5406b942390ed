"""The array type of this room's functions."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
