"""A device's options and noise, read from text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import (
    CHANNELS,
    Noise,
    SettingsError,
    parse_device_options,
    parse_noise,
    parse_run,
)


def test_options_are_read_by_their_form() -> None:
    assert parse_device_options("") == parse_device_options("  ") == {}
    read = parse_device_options("a=true, b = false,c_d=3,e=-1e-3,f=complex64,g=nan,h=/a b:c")
    assert read == {
        **{"a": True, "b": False, "c_d": 3, "e": -0.001},
        **{"f": "complex64", "g": "nan", "h": "/a b:c"},
    }
    assert type(read["c_d"]) is int


def test_noise_is_read_channel_by_channel() -> None:
    assert parse_noise("") == Noise()
    assert not parse_noise("readout=0")
    noise = parse_noise("depolarizing=0.01, amplitude-damping=2e-2,phase-damping=0,readout=1")
    assert noise == Noise(depolarizing=0.01, amplitude_damping=0.02, readout=1.0)
    assert str(noise) == "depolarizing=0.01,amplitude-damping=0.02,readout=1"


@given(st.dictionaries(st.sampled_from(CHANNELS), st.integers(0, 1000).map(lambda i: i / 1000)))
def test_noise_comes_back_from_its_text(probabilities: dict[str, float]) -> None:
    noise = parse_noise(",".join(f"{name}={value}" for name, value in probabilities.items()))
    assert parse_noise(str(noise)) == noise
    assert bool(noise) == any(probabilities.values())


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (
            parse_device_options,
            "batch_obs",
            r"= 'batch_obs' with the part 'batch_obs'; accep",
        ),
        (parse_device_options, "a=1,,b=2", "with the part ''"),
        (parse_device_options, "a=1,", "with the part ''"),
        (parse_device_options, "=1", "with the part '=1'"),
        (parse_device_options, "a=", "with the part 'a='"),
        (parse_device_options, "a=b=c", "with the part 'a=b=c'"),
        (
            parse_device_options,
            'a="b"',
            "accepted: key=value,key=value without quotes; c",
        ),
        (parse_device_options, "a=1,a=2", "'a=1,a=2' with 'a' twice"),
        (
            parse_device_options,
            "wires=3",
            "sets wires; accepted: .*the run decides wires, shots, seed, seed_simulator; re",
        ),
        (parse_device_options, "seed=3", "quantum.device_options sets seed"),
        (
            parse_noise,
            "depolarizing",
            "quantum.noise = 'depolarizing' with the part 'depolarizing'",
        ),
        (parse_noise, "thermal=0.1", "the channel 'thermal'; accepted: depolarizing, .*, readout"),
        (parse_noise, "readout=1.5", r"with readout=1\.5; accepted: a probability from 0 to 1"),
        (parse_noise, "bit-flip=-0.1", r"quantum.noise with bit-flip=-0\.1"),
        (parse_noise, "readout=true", "with readout=true"),
        (parse_noise, "readout=nan", "with readout=nan"),
    ],
)
def test_text_of_another_form_is_one_clear_line(
    read: Callable[[str], object], text: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_text_of_another_form_is_told_before_anything_starts() -> None:
    device = "quantum.backend=pennylane:default.mixed"
    with pytest.raises(SettingsError, match=r"with the channel 'depol'; accepted: depolarizing"):
        parse_run([], [device, "quantum.noise=depol=0.1"])
    with pytest.raises(SettingsError, match="sets wires; accepted"):
        parse_run([], [device, "quantum.device_options=wires=3"])
