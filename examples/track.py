# examples/track.py
"""A run whose figures go to TensorBoard while it runs, read back from its event files."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import llm_qfl

result = llm_qfl.run(
    "demo",
    rounds=2,
    clients=2,
    train={"steps": 2},
    llm={"epochs": 1},
    data={"train_rows": 80, "test_rows": 40, "server_rows": 40},
    track="tensorboard",
    quiet=True,
)
events = EventAccumulator(str(result.folder / "tensorboard"))
events.Reload()
for point in events.Scalars("run/loss"):
    print(f"round {point.step}: loss {point.value:.4f}")
for client in (0, 1):
    print(f"client {client}:", [point.value for point in events.Scalars(f"client-{client}/loss")])
