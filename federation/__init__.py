"""What both sides of the federation agree on: settings, errors, ledger, results folder.

This door knows neither Flower nor torch. The message vocabulary, which needs Flower's
records, is the second door: `federation.messages`.
"""

from federation.errors import (
    BackendError,
    DataError,
    ModelError,
    SettingsError,
    UserError,
    explain,
)
from federation.ledger import COST_KEYS, Cost, Ledger, idle_share, total, with_idle
from federation.parsing import accepted, fields, flatten, meta, parse_run, parse_settings
from federation.results import (
    STORE_VARIABLE,
    append_jsonl,
    atomic_write,
    new_run_folder,
    plain,
    read_jsonl,
    store_root,
    write_json,
    write_text,
)
from federation.settings import (
    DataSettings,
    DistillSettings,
    FeatureSettings,
    LlmSettings,
    QuantumSettings,
    Settings,
    TrainSettings,
)

__all__ = [
    "COST_KEYS",
    "STORE_VARIABLE",
    "BackendError",
    "Cost",
    "DataError",
    "DataSettings",
    "DistillSettings",
    "FeatureSettings",
    "Ledger",
    "LlmSettings",
    "ModelError",
    "QuantumSettings",
    "Settings",
    "SettingsError",
    "TrainSettings",
    "UserError",
    "accepted",
    "append_jsonl",
    "atomic_write",
    "explain",
    "fields",
    "flatten",
    "idle_share",
    "meta",
    "new_run_folder",
    "parse_run",
    "parse_settings",
    "plain",
    "read_jsonl",
    "store_root",
    "total",
    "with_idle",
    "write_json",
    "write_text",
]
