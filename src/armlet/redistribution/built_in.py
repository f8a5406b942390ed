"""The policies that armlet brings, which every backend knows."""

from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.transport import Transport

BUILT_IN_POLICIES = (Outward, Inward, Transport, Cut)
POLICIES = {policy.name: policy for policy in BUILT_IN_POLICIES}

PUBLISHED = "published"
"""The first word of a policy's text that names a published setting of `Outward`."""
