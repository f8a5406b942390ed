"""The policies that armlet brings, which every backend knows."""

from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.transport import Transport

BUILT_IN_POLICIES = (Outward, Inward, Transport, Cut)
POLICIES = {policy.name: policy for policy in BUILT_IN_POLICIES}

PUBLISHED = "published"
"""The first word of a policy's text that names a published setting of `Outward`."""


def is_user_policy(policy: object) -> bool:
    """Whether an object is a policy of a class that is not armlet's."""
    kind = type(policy)
    is_policy = not isinstance(policy, type) and callable(getattr(policy, "move", None))
    return is_policy and not kind.__module__.startswith("armlet.")
