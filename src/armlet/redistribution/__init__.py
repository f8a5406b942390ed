"""Redistributes the values of a tensor. Imports only torch."""

from armlet.redistribution import presets as presets
from armlet.redistribution.cut import Cut as Cut
from armlet.redistribution.entry import redistribute as redistribute
from armlet.redistribution.inward import Inward as Inward
from armlet.redistribution.noise import Noise as Noise
from armlet.redistribution.outward import Outward as Outward
from armlet.redistribution.transport import Transport as Transport
