"""Where a model needs bounds, and whether what runs applies those that it was trained with."""

from armlet.bounds.conform_result import Conformity as Conformity
from armlet.bounds.conform_run import conform as conform
from armlet.bounds.limits_result import Limits as Limits
from armlet.bounds.limits_run import limits as limits
