"""Options of a PennyLane device, given as text: its own arguments, and the noise it simulates.

Both are parsed with the other settings, before anything starts, and again where the device is
opened.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from core.errors import SettingsError
from core.settings.options import FORM, Option, read_scalar, split_pairs

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
            accepted = f"the device's other arguments; the run decides {', '.join(RUN_DECIDES)}"
            raise SettingsError(f"quantum.device_options sets {key}", accepted, f"remove {key}")
        if any(word in key.lower() for word in SECRETS):
            raise SettingsError(
                f"quantum.device_options sets {key}, which may be a secret",
                "options without secrets: settings are written down and sent to every node",
                "give it to the plugin by its own environment variable or file",
            )
        options[key] = read_scalar(value)
    return options


Probability = Annotated[float, Field(ge=0, le=1)]


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
    pydantic.ValidationError
        If one of them is no probability.
    """

    depolarizing: Probability = 0.0
    amplitude_damping: Probability = 0.0
    phase_damping: Probability = 0.0
    bit_flip: Probability = 0.0
    phase_flip: Probability = 0.0
    readout: Probability = 0.0

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        shown = {name.replace("_", "-"): p for name, p in asdict(self).items() if p > 0}
        return ",".join(f"{name}={p:g}" for name, p in shown.items())


NOISELESS = Noise()
CHANNELS = tuple(name.replace("_", "-") for name in asdict(NOISELESS))
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
    given: dict[str, Any] = dict(split_pairs("quantum.noise", text, form))
    for name in given:
        if name not in CHANNELS:
            what = f"quantum.noise = {text!r} with the channel {name!r}"
            raise SettingsError(what, ", ".join(CHANNELS), "correct quantum.noise")
    try:
        return Noise(**{name.replace("-", "_"): value for name, value in given.items()})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).replace("_", "-")
        what = f"quantum.noise with {name}={given[name]}"
        raise SettingsError(what, "a probability from 0 to 1", "correct quantum.noise") from None
