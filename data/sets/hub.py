"""Any data set of the Hugging Face hub, by its id or from a local folder in its layout."""

from __future__ import annotations

from pathlib import Path

from core import DataError, DataSettings
from core.formatting import split_list
from data.checks import class_names
from data.dataset import Dataset
from data.readers.columns import wanted_columns
from data.readers.hub import choose_splits, hub_columns, load_hub


class _Hub:
    """A data set of the hub."""

    uses = (
        "data.path",
        "data.hub_name",
        "data.hub_config",
        "data.hub_revision",
        "data.hub_splits",
        "data.kind",
        "data.text_column",
        "data.label_column",
        "data.partition_column",
        "data.labels",
        "data.test_fraction",
    )

    def __call__(self, settings: DataSettings) -> Dataset:
        """Load it; see `data.readers.hub`."""
        default = DataSettings.model_fields["hub_name"].default
        if not settings.path and settings.hub_name in ("", default):
            raise DataError(
                "data.source = hub without data.hub_name and data.path",
                "the id of a data set on the hub, for instance fancyzhx/ag_news, or a local folder",
                "set data.hub_name",
            )
        place = str(Path(settings.path).expanduser()) if settings.path else settings.hub_name
        found = load_hub(place, settings.hub_config, settings.hub_revision)
        given = split_list(settings.hub_splits) if settings.hub_splits else ()
        splits, note = choose_splits(found, place, given)
        named = [split for split in splits if split]
        read, names = hub_columns(found, place, named, wanted_columns(settings))
        parts = dict(zip(named, read, strict=True))
        test, validation = (parts.get(split) for split in (*splits, "", "")[1:3])
        return Dataset(
            read[0],
            test,
            validation,
            kind=settings.kind,
            classes=class_names(settings.labels) if settings.labels else names,
            name=Path(place).name if settings.path else place,
            notes=(note,) if note else (),
        )


DATASET = _Hub()
