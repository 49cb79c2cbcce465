"""Engine builds: what is installed, installing it, proving that it computes.

A build is a directory that stands in front of a worker's search path: gemd's interpreter and
packages, with another llama_cpp (or torch). Nothing in gemd's own environment changes.

============= =====================================================================
build         one build, and its `engine.json` (pure)
shelf         which builds there are; looks at files, imports nothing
choice        which of them a worker gets (pure)
facts         what a machine has to build with (values)
looking       asks the machine for them
prerequisites what compiling needs, what is missing, and how to get it (pure)
recipes       the ways to a build, their commands and costs (pure)
planning      which of them can be gone here (pure)
installers    pip and uv: their options and environment
running       a long command that ends with us
folder        the folder of engines while it changes
installing    the ways in turn, until a build passes its trial
verification  the trial, and what it proves
tiny_model    the model it is tried with (pure)
selftest      every way to compute of the diffusion engine, tried in a build
============= =====================================================================

The daemon uses the first three, and never installs: it looks into the folder whenever it
starts a worker, so that a new build is in use from the next load on.
"""

from __future__ import annotations

from gemd.engine.builds.build import BACKENDS, ENGINES, Build
from gemd.engine.builds.choice import best_backend, choose_build, install_command
from gemd.engine.builds.shelf import installed_builds

__all__ = [
    "BACKENDS",
    "ENGINES",
    "Build",
    "best_backend",
    "choose_build",
    "install_command",
    "installed_builds",
]
