"""What the sites of one process share: parsed settings, data sets that were read, the simulator.

A deployed node is one site, and little is gained. In a simulation each of a thousand sites would
otherwise read and share out the whole data set, and parse the same settings at every message.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flwr.app import Context

from core import (
    QuantumSettings,
    Settings,
    SettingsError,
    backend_of,
    parse_settings,
    quantum_of,
)
from core.settings.parsing import FLOWER_NODE_KEYS

if TYPE_CHECKING:
    from data import SharedRows
    from quantum import Classifier

MOST_SITES = 32
"""Sites that a process caches, unless it says that it holds more."""

T = TypeVar("T")
Values = tuple[tuple[str, type, Any], ...]
"""Keys and values of a configuration; 1, 1.0 and True are three values."""


class Recent(Generic[T]):
    """The latest values by key; the oldest leave when there are more than fit.

    Attributes
    ----------
    room : int
        How many fit.
    all_here : bool
        Whether these are all that there are, so that none leaves.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.all_here = False
        self._held: OrderedDict[object, T] = OrderedDict()

    def get(self, key: object, make: Callable[[], T]) -> T:
        """Return the value of a key, made where it is not there."""
        if key not in self._held:
            self._held[key] = make()
        self._held.move_to_end(key)
        while len(self._held) > self.room:
            self._held.popitem(last=False)
        return self._held[key]

    def __len__(self) -> int:
        """Count the values."""
        return len(self._held)

    def resize(self, room: int, *, all_here: bool = False) -> None:
        """Let so many values fit from now on."""
        self.room, self.all_here = room, all_here

    def clear(self) -> None:
        """Drop all values."""
        self._held.clear()


def settings_of(run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> Settings:
    """Parse a node's settings, once for all nodes that have the same.

    Parameters and errors are those of `core.parse_settings`.
    """
    own = {key: value for key, value in node_config.items() if key not in FLOWER_NODE_KEYS}
    if own.get("quantum.layers") and not run_config.get("quantum.layers"):
        raise SettingsError(
            f"quantum.layers = {own['quantum.layers']!r} of this node, and none of the run",
            "a run that averages layer by layer",
            "set quantum.layers in the run too, for instance to quantum.reps",
        )
    return _parsed(_values(run_config), _values(own))


def _values(config: Mapping[str, Any]) -> Values:
    return tuple((key, type(value), value) for key, value in config.items())


@functools.lru_cache(maxsize=16)
def _parsed(run_config: Values, node_config: Values) -> Settings:
    def plain(values: Values) -> dict[str, Any]:
        return {key: value for key, _, value in values}

    return parse_settings(plain(run_config), plain(node_config))


def of_client(settings: Settings, client: int) -> Settings:
    """Return the settings of a client with its one backend and its own layers."""
    backend = backend_of(settings.quantum.backend, client)
    own = quantum_of(settings.quantum, client)
    return _with_quantum(settings, own.model_copy(update={"backend": backend}))


@functools.lru_cache(maxsize=64)
def _with_quantum(settings: Settings, quantum: QuantumSettings) -> Settings:
    return settings.model_copy(update={"quantum": quantum})


@functools.lru_cache(maxsize=1)
def shared_rows(run: str) -> SharedRows:
    """Return the data sets that sites of this process have read in a run, by Flower's id."""
    from data import SharedRows

    return SharedRows()


@functools.lru_cache(maxsize=4)
def simulator(run: str, settings: QuantumSettings, classes: int) -> Classifier:
    """Return a run's classifier on the exact simulator, which is the same for every site."""
    from quantum import build_classifier

    return build_classifier(settings.model_copy(update={"backend": "exact"}), classes)


def clear() -> None:
    """Empty what this module holds."""
    for cached in (_parsed, _with_quantum, shared_rows, simulator):
        cached.cache_clear()


def client_of(context: Context, settings: Settings) -> int:
    """Return the index of the client that a node is."""
    clients = settings.run.clients
    if "partition-id" not in context.node_config:
        raise SettingsError(
            "node config without partition-id",
            f"a whole number from 0 to {clients - 1}, one for each node",
            f"start the node with --node-config 'partition-id=0 num-partitions={clients}'",
        )
    client = int(context.node_config["partition-id"])
    if not 0 <= client < clients:
        raise SettingsError(
            f"node config partition-id = {client} with run.clients = {clients}",
            f"0 to {clients - 1}",
            "start as many nodes as run.clients says, or change run.clients",
        )
    return client
