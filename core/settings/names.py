"""Whether the names in settings are names of extensions, and of whose."""

from __future__ import annotations

from core import registry
from core.errors import SettingsError
from core.settings.features import check_feature_kinds
from core.settings.schema import Settings, flatten, traits


def check_names(settings: Settings) -> None:
    """Refuse names of features and extensions that nothing has, and code where it is not allowed.

    Nothing of the user's is imported before.

    Raises
    ------
    SettingsError
        With the first such name.
    """
    check_feature_kinds(settings.features)
    flat = flatten(settings)
    for point in registry.POINTS.values():
        name = str(flat[point.setting])
        if registry.OWN_FILE.fullmatch(name) and not settings.run.allow_code:
            given = (
                f"{point.setting} = {name!r}, code of the user's own, with run.allow_code = false"
            )
            accepted = "what ships or an installed package declares"
            raise SettingsError(given, accepted, "set run.allow_code=true there, or name another")
        if traits(point.setting).point:
            registry.check_name(point.name, name)
