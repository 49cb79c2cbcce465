"""``python -m gemd.worker.diffusion.selftest``: every way to compute, tried on a tiny model.

========== ========================================================================
measuring  the numbers of one path, by the engine's own parts
parts      ``python -m …selftest.parts``: one part after the other, a line for each
watching   runs that process, again where it dies, and collects what it said
========== ========================================================================

One process goes through all parts and tells each number as soon as it has it. If it dies, or its
GPU is lost to it, what is known stays known, and another process does what is left: a path that
crashes takes no other with it, and where none does torch is imported once, which takes as long as
everything else together.

The document has ``software``, ``device``, ``checkpoint`` and ``paths``, each with what is known of
it, and ``problem`` where something went wrong. Of a path: ``obstacle``, ``layer_error`` and
``step_error`` with their bounds (relative, null where a number is none), ``questions``, ``right``,
``wrong``, ``same_together``, ``step_ms``; ``out_of_memory``, ``died`` or ``fatal`` (the GPU is lost
to the process) say what kind a problem is. `gemd.engine.builds.selftest` reads it,
`gemd.doctor.compute` judges it.
"""

from __future__ import annotations
