"""What filler tokens do inside a layer."""

from armlet.mechanism.result import Explanation as Explanation
from armlet.mechanism.run import explain as explain
