"""What both sides of the federation agree on: settings, errors, ledger, results folder.

This door knows neither Flower nor torch. The message vocabulary, which needs Flower's
records, is the second door: `federation.messages`.
"""

from federation.agent_settings import circuit_prices
from federation.backends import (
    backend_names,
    backend_of,
    family,
    is_shot_based,
    local_optimizer,
)
from federation.checkpoints import (
    Checkpoint,
    alone,
    last_checkpoint,
    no_checkpoint,
    note_underway,
    rewind,
    settle_repeated,
    write_checkpoint,
)
from federation.data_settings import DataSettings, FeatureSettings
from federation.errors import (
    BackendError,
    BudgetError,
    DataError,
    ModelError,
    SettingsError,
    UserError,
    explain,
)
from federation.hardware_settings import HardwareSettings
from federation.ledger import COST_KEYS, Asking, Cost, Ledger, idle_share, total, with_idle
from federation.llm_settings import DistillSettings, LlmSettings
from federation.locking import held
from federation.parsing import (
    accepted,
    fields,
    flatten,
    meta,
    parse_node,
    parse_run,
    parse_settings,
)
from federation.pennylane_text import (
    CHANNELS,
    NOISELESS,
    RUN_DECIDES,
    Noise,
    Option,
    parse_device_options,
    parse_noise,
)
from federation.results import (
    STORE_VARIABLE,
    append_jsonl,
    atomic_write,
    json_object,
    new_run_folder,
    plain,
    read_json,
    read_jsonl,
    store_root,
    write_json,
    write_text,
)
from federation.resuming import may_change, no_run, recorded_settings, refuse_changes
from federation.seeds import derive_seed
from federation.settings import QuantumSettings, Settings, TrainSettings
from federation.shares import selection_size
from federation.text import display_safe, hidden_character
from federation.words import (
    BASELINES,
    byte_size,
    conditions,
    duration,
    figure,
    is_number,
    percent,
    privacy_words,
    scored_at,
    toml_value,
    whole,
)

__all__ = [
    "BASELINES",
    "CHANNELS",
    "COST_KEYS",
    "NOISELESS",
    "RUN_DECIDES",
    "STORE_VARIABLE",
    "Asking",
    "BackendError",
    "BudgetError",
    "Checkpoint",
    "Cost",
    "DataError",
    "DataSettings",
    "DistillSettings",
    "FeatureSettings",
    "HardwareSettings",
    "Ledger",
    "LlmSettings",
    "ModelError",
    "Noise",
    "Option",
    "QuantumSettings",
    "Settings",
    "SettingsError",
    "TrainSettings",
    "UserError",
    "accepted",
    "alone",
    "append_jsonl",
    "atomic_write",
    "backend_names",
    "backend_of",
    "byte_size",
    "circuit_prices",
    "conditions",
    "derive_seed",
    "display_safe",
    "duration",
    "explain",
    "family",
    "fields",
    "figure",
    "flatten",
    "held",
    "hidden_character",
    "idle_share",
    "is_number",
    "is_shot_based",
    "json_object",
    "last_checkpoint",
    "local_optimizer",
    "may_change",
    "meta",
    "new_run_folder",
    "no_checkpoint",
    "no_run",
    "note_underway",
    "parse_device_options",
    "parse_node",
    "parse_noise",
    "parse_run",
    "parse_settings",
    "percent",
    "plain",
    "privacy_words",
    "read_json",
    "read_jsonl",
    "recorded_settings",
    "refuse_changes",
    "rewind",
    "scored_at",
    "selection_size",
    "settle_repeated",
    "store_root",
    "toml_value",
    "total",
    "whole",
    "with_idle",
    "write_checkpoint",
    "write_json",
    "write_text",
]
