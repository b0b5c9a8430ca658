"""Settings: what can be set, where a value came from, what it means, and an example file."""

from streams.settings.describe import Described, describe, example_toml
from streams.settings.load import DEFAULT_FILE, load_settings
from streams.settings.models import SecuritySettings, Settings
from streams.settings.texts import OTHER_VARIABLES, ROLE_MEANINGS, ROLES
from streams.settings.topics import TopicSettings
from streams.settings.trainer import TrainerSettings

__all__ = [
    "DEFAULT_FILE",
    "OTHER_VARIABLES",
    "ROLES",
    "ROLE_MEANINGS",
    "Described",
    "SecuritySettings",
    "Settings",
    "TopicSettings",
    "TrainerSettings",
    "describe",
    "example_toml",
    "load_settings",
]
