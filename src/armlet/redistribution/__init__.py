"""Redistributes the values of a tensor. Imports only torch.

For a policy of your own (docs/howto/own_policy.md): the protocol `Policy`, its arguments `Rows` and `Draw`, `ordered`,
the order statistics that leave out padding, and `parse_policy`.
"""

from armlet.redistribution import presets as presets
from armlet.redistribution.cut import Cut as Cut
from armlet.redistribution.entry import redistribute as redistribute
from armlet.redistribution.inward import Inward as Inward
from armlet.redistribution.noise import Noise as Noise
from armlet.redistribution.order import ordered as ordered
from armlet.redistribution.outward import Outward as Outward
from armlet.redistribution.policies import parse_policy as parse_policy
from armlet.redistribution.rows import Draw as Draw
from armlet.redistribution.rows import Policy as Policy
from armlet.redistribution.rows import Rows as Rows
from armlet.redistribution.transport import Transport as Transport
