"""Who is warm: admission (pure), and the one loop that owns every model's state.

`planner` decides, `manager` acts, `states` holds what both speak about. DESIGN.md
beside this file says why it is built like that.
"""
