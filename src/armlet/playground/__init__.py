"""A page in a browser: see inside a layer, and move the knobs."""

from armlet.playground.run import play as play
