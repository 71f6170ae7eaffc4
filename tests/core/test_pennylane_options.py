"""A PennyLane device's options and noise, parsed from text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Noise, SettingsError, parse_device_options, parse_noise, parse_run
from core.settings.pennylane_options import CHANNELS


def test_options_are_parsed_by_their_form() -> None:
    assert parse_device_options("") == parse_device_options("  ") == {}
    options = parse_device_options("a=true, b = false,c_d=3,e=-1e-3,f=complex64,g=nan,h=/a b:c")
    assert options == {
        **{"a": True, "b": False, "c_d": 3, "e": -0.001},
        **{"f": "complex64", "g": "nan", "h": "/a b:c"},
    }
    assert type(options["c_d"]) is int


def test_noise_is_parsed_channel_by_channel() -> None:
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
    ("key", "text", "message"),
    [
        ("device_options", "batch_obs", r"= 'batch_obs' with the part 'batch_obs'; accep"),
        ("device_options", "a=1,,b=2", "with the part ''"),
        ("device_options", "a=1,", "with the part ''"),
        ("device_options", "=1", "with the part '=1'"),
        ("device_options", "a=", "with the part 'a='"),
        ("device_options", "a=b=c", "with the part 'a=b=c'"),
        ("device_options", 'a="b"', "accepted: key=value,key=value without quotes; correct quant"),
        ("device_options", "a=1,a=2", "'a=1,a=2' with 'a' twice"),
        ("device_options", "wires=3", "sets wires; .* decides wires, shots, seed, seed_simulator"),
        ("device_options", "seed=3", "quantum.device_options sets seed"),
        ("device_options", "my_token=3", "sets my_token, which may be a secret; accepted"),
        ("noise", "depolarizing", "quantum.noise = 'depolarizing' with the part 'depolarizing'"),
        ("noise", "thermal=0.1", "the channel 'thermal'; accepted: depolarizing, .*, readout"),
        ("noise", "readout=1.5", r"with readout=1\.5; accepted: a probability from 0 to 1"),
        ("noise", "bit-flip=-0.1", r"quantum.noise with bit-flip=-0\.1"),
        ("noise", "readout=true", "with readout=true"),
        ("noise", "readout=nan", "with readout=nan"),
    ],
)
def test_text_of_another_form_is_one_clear_line(key: str, text: str, message: str) -> None:
    parse = parse_noise if key == "noise" else parse_device_options
    device = "quantum.backend=pennylane:default.mixed"
    for read in (lambda: parse(text), lambda: parse_run([], [device, f"quantum.{key}={text}"])):
        with pytest.raises(SettingsError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
