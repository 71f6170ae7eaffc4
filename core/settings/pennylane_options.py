"""What a PennyLane device is told by text: its own arguments, and the noise it simulates.

Both are read with the other settings, before anything starts, and again where the device is
opened.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields

from core.errors import SettingsError

Option = bool | int | float | str
"""What an argument of a device can be."""

FORM = "key=value,key=value without quotes"
RUN_DECIDES = ("wires", "shots", "seed", "seed_simulator")
"""Arguments of a device that follow from the run's other settings."""


SECRETS = ("token", "key", "secret", "password", "credential")
"""Parts of a name by which a secret is known."""


def parse_device_options(text: str) -> dict[str, Option]:
    """Read ``quantum.device_options``.

    Parameters
    ----------
    text : str
        ``key=value,key=value``; blanks around keys and values do not count. ``true`` and
        ``false`` are booleans, numbers are numbers, everything else is text. Empty: no options.

    Returns
    -------
    dict
        The device's arguments.

    Raises
    ------
    SettingsError
        For text of another form, a key given twice, one that the run itself decides
        (`RUN_DECIDES`), or one that sounds like a secret.
    """
    options: dict[str, Option] = {}
    for key, value in split_pairs("quantum.device_options", text, FORM):
        if key in RUN_DECIDES:
            raise SettingsError(
                f"quantum.device_options sets {key}",
                f"the device's other arguments; the run decides {', '.join(RUN_DECIDES)}",
                f"remove {key}",
            )
        if any(word in key.lower() for word in SECRETS):
            raise SettingsError(
                f"quantum.device_options sets {key}, which may be a secret",
                "options without secrets: settings are written down and sent to every node",
                "give it to the plugin by its own environment variable or file",
            )
        options[key] = read_scalar(value)
    return options


def split_pairs(setting: str, text: str, form: str) -> list[tuple[str, str]]:
    """Split ``key=value,key=value`` into pairs, blanks stripped.

    Parameters
    ----------
    setting : str
        The setting's name, for the error.
    text : str
        Its value.
    form : str
        What the setting accepts, for the error.

    Returns
    -------
    list of (str, str)
        In the order given; empty for an empty text.

    Raises
    ------
    SettingsError
        If a part is no ``key=value`` of a name and a plain value, or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for part in text.split(",") if text.strip() else []:
        key, _, value = (word.strip() for word in part.partition("="))
        plain = key.replace("-", "_").isidentifier() and value and not set(value) & set("\"'=")
        if not plain or key in pairs:
            what = f"{key!r} twice" if plain else f"the part {part.strip()!r}"
            raise SettingsError(f"{setting} = {text!r} with {what}", form, f"mend {setting}")
        pairs[key] = value
    return list(pairs.items())


def read_scalar(text: str) -> Option:
    """Read ``true`` and ``false`` as booleans, finite numbers as numbers, the rest as text."""
    if text in ("true", "false"):
        return text == "true"
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    return text


@dataclass(frozen=True)
class Noise:
    """Probabilities of the noise channels; PennyLane's definitions.

    The gate channels act after every gate of the circuit as the ansatz writes it, the encoding's
    included, on each of the gate's wires, in the order below. ``readout`` acts once, on every
    qubit that is read out, before the measurement.

    Attributes
    ----------
    depolarizing : float
        A Pauli X, Y or Z, each with a third of this probability: <Z> shrinks by 1 - 4 p / 3.
    amplitude_damping : float
        |1> decays to |0>.
    phase_damping : float
        Coherences shrink by sqrt(1 - p).
    bit_flip, phase_flip : float
        A Pauli X, a Pauli Z.
    readout : float
        The measured bit is wrong: <Z> shrinks by 1 - 2 p.

    Raises
    ------
    SettingsError
        If one of them is no probability.
    """

    depolarizing: float = 0.0
    amplitude_damping: float = 0.0
    phase_damping: float = 0.0
    bit_flip: float = 0.0
    phase_flip: float = 0.0
    readout: float = 0.0

    def __post_init__(self) -> None:
        for name, probability in self._items():
            if not 0.0 <= probability <= 1.0:
                raise not_probable(name, str(probability))

    def __bool__(self) -> bool:
        return any(probability > 0 for _, probability in self._items())

    def __str__(self) -> str:
        return ",".join(f"{name}={p:g}" for name, p in self._items() if p > 0)

    def _items(self) -> list[tuple[str, float]]:
        """Return every channel by the name that the setting gives it."""
        return [(f.name.replace("_", "-"), getattr(self, f.name)) for f in dataclass_fields(self)]


NOISELESS = Noise()
CHANNELS = tuple(field.name.replace("_", "-") for field in dataclass_fields(Noise))
"""Names of the channels in ``quantum.noise``."""


def parse_noise(text: str) -> Noise:
    """Read ``quantum.noise``.

    Parameters
    ----------
    text : str
        ``channel=probability,...`` with names of `CHANNELS`; empty: none.

    Returns
    -------
    Noise
        The probabilities.

    Raises
    ------
    SettingsError
        For text of another form, an unknown channel, or what is no probability.
    """
    form = f"channel=probability,... with channels {', '.join(CHANNELS)}"
    given: dict[str, float] = {}
    for name, value in split_pairs("quantum.noise", text, form):
        if name not in CHANNELS:
            raise SettingsError(
                f"quantum.noise = {text!r} with the channel {name!r}",
                ", ".join(CHANNELS),
                "mend quantum.noise",
            )
        number = read_scalar(value)
        if isinstance(number, bool | str):
            raise not_probable(name, value)
        given[name.replace("-", "_")] = float(number)
    return Noise(**given)


def not_probable(name: str, value: str) -> SettingsError:
    """Build the error of a channel whose number is no probability."""
    return SettingsError(
        f"quantum.noise with {name}={value}", "a probability from 0 to 1", "mend quantum.noise"
    )
