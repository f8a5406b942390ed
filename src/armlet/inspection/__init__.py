"""What a policy does to a layer's activated gate."""

from armlet.inspection.result import Inspection as Inspection
from armlet.inspection.run import inspect as inspect
