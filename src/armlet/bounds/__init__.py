"""Where a model needs bounds: how large its values are against number formats, and which limits keep them inside."""

from armlet.bounds.limits_result import Limits as Limits
from armlet.bounds.limits_run import limits as limits
