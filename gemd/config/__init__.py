"""The settings: what each means, where its value came from, and what is wrong with it.

A value comes from, strongest first: a flag, the environment (`GEMD_<KEY>`), the
configuration file (TOML, flat keys), the default. `HF_ENDPOINT` counts for
`hub_endpoint` just below its GEMD_ namesake, because everybody who needs it has set it
already.
"""

from __future__ import annotations

from gemd.config.loading import load_settings, mend
from gemd.config.settings import Resolved, SettingDescription, Settings, SettingValue

__all__ = ["Resolved", "SettingDescription", "SettingValue", "Settings", "load_settings", "mend"]
