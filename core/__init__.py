"""What both sides of the federation agree on: settings, errors, ledger, results folder.

Needs neither Flower nor torch. Doors of their own: `core.formatting`, `core.storage.checkpoints`,
and `core.messages`, which needs Flower's records.
"""

from core.errors import (
    BackendError,
    BudgetError,
    DataError,
    ModelError,
    SettingsError,
    UserError,
    explain,
    short_message,
    unexpected_error,
)
from core.hub import hub_reachable
from core.ledger import COST_KEYS, AgentUsage, Cost, Ledger, idle_share, total, with_idle
from core.seeds import derive_seed
from core.settings.backends import (
    backend_names,
    backend_of,
    family,
    is_shot_based,
    is_simulated,
    local_optimizer,
)
from core.settings.data import DataSettings
from core.settings.declare import AUTO
from core.settings.derived import (
    averages_rounds,
    circuit_prices,
    fine_tunes_llm,
    most_steps,
    selection_size,
    with_run_name,
    worst_steps,
)
from core.settings.features import FeatureSettings, kind_names, kind_of
from core.settings.hardware import HardwareSettings
from core.settings.layers import quantum_of, with_layers
from core.settings.llm import DistillSettings, LlmSettings
from core.settings.options import Option, parse_options
from core.settings.parsing import (
    parse_layers,
    parse_node,
    parse_run,
    parse_settings,
    settings_command,
)
from core.settings.pennylane_options import (
    NOISELESS,
    RUN_DECIDES,
    Noise,
    parse_device_options,
    parse_noise,
)
from core.settings.quantum import QuantumSettings
from core.settings.resuming import may_change, no_run, recorded_settings, refuse_changes
from core.settings.schema import (
    FIELDS,
    SECTIONS,
    Settings,
    accepted,
    condition_text,
    descriptions,
    flatten,
    traits,
)
from core.settings.train import TrainSettings
from core.storage.content_store import (
    STORE_VARIABLE,
    ContentStore,
    open_store,
    private_folder,
    site_secret,
    size_on_disk,
    store_root,
    stored_items,
)
from core.storage.files import (
    append_jsonl,
    atomic_write,
    by_number,
    check_new_run,
    file_lock,
    json_object,
    new_run_folder,
    plain,
    read_file,
    read_json,
    read_jsonl,
    real_path,
    write_bytes,
    write_json,
    write_once,
    write_text,
)
