"""An engine without a model that does what it is told, for tests of faults and timing.

`script.LoadScript` comes in ``Load.options``; `script.Script` comes as JSON in the text of
a prompt, or in its last chat message. Any other prompt is answered with its own words. With
`script.Play` one prompt has a script for each of several models, which also holds for the
turns that follow it. A token is a word with the space before it; vectors are hashes, and
so are log-probabilities of which no script says anything.
"""

from gemd.worker.scripted.engine import create

__all__ = ["create"]
