"""Training many clients of one process in one launch, before each is asked for its reply.

A simulation in one process hands all training messages of a round over. What can be trained
together is: the outcomes wait here, and each client's handler finds its own, so that replies,
errors and everything after them are made as if each had trained alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message

from client_app.site import SiteCache, load_cache
from client_app.work import Begun, Outcome, begin_training
from core.messages import TRAIN, Parameters, TrainIns, read_instruction


@dataclass(frozen=True)
class _Waiting:
    """A training whose reply nobody has asked for; `begun` is an error if it could not begin."""

    parameters: Parameters
    instruction: TrainIns
    begun: Begun | Exception
    outcome: Outcome | None = None

    def answers(self, parameters: Parameters, instruction: TrainIns) -> bool:
        """Whether it is what a message wants."""
        return instruction == self.instruction and all(
            np.array_equal(parameters[name], self.parameters[name]) for name in parameters
        )


_waiting: dict[str, _Waiting] = {}
"""By the run and the client, as `SiteCache.run` names them."""


@contextmanager
def trained_together(
    messages: Sequence[Message], contexts: Mapping[int, Context]
) -> Iterator[None]:
    """Train those of a round's participants together that run on the exact simulator.

    While the context is open, `take_trained` finds what they have learned.

    Parameters
    ----------
    messages : sequence of Message
        What is sent; messages that request no training, and one alone, wait for their handlers.
    contexts : mapping
        Flower's context of each node, by its id.
    """
    wanted = [message for message in messages if message.metadata.message_type == TRAIN]
    names: list[str] = []
    try:
        if len(wanted) > 1:
            for message in wanted:
                names += _begin(message, contexts[message.metadata.dst_node_id])
            _train(names)
        yield
    finally:
        for name in names:
            _waiting.pop(name, None)


def take_trained(
    cache: SiteCache, parameters: Parameters, instruction: TrainIns
) -> tuple[Begun, Outcome | None]:
    """Return a client's training, begun now or together with others; and its outcome, if any.

    Raises
    ------
    Exception
        What kept the client from beginning.
    """
    found = _waiting.pop(cache.run, None)
    if found is None or not found.answers(parameters, instruction):
        return begin_training(cache, parameters, instruction), None
    if isinstance(found.begun, Exception):
        raise found.begun
    return found.begun, found.outcome


def _begin(message: Message, context: Context) -> list[str]:
    """Get a client ready to train; return its name, or nothing if it is to go alone."""
    try:
        parameters, instruction = read_instruction(message, TrainIns)
        fine_tuned = instruction.fine_tuned
        cache = load_cache(context, instruction.run, instruction.adapter, fine_tuned=fine_tuned)
    except Exception:  # the handler meets it again, and replies with it
        return []
    warm = instruction.round <= cache.settings.train.warm_rounds
    if cache.settings.quantum.backend != "exact" and not warm:
        return []
    try:
        begun: Begun | Exception = begin_training(cache, parameters, instruction)
    except Exception as error:
        begun = error
    _waiting[cache.run] = _Waiting(parameters, instruction, begun)
    return [cache.run]


def _train(names: Sequence[str]) -> None:
    """Train those that have begun; each takes its part of the seconds, by steps times rows."""
    from quantum import train_together

    begun = {name: _waiting[name].begun for name in names}
    tasks = {name: one.task for name, one in begun.items() if isinstance(one, Begun)}
    work = {name: task.steps * len(task.data.labels) for name, task in tasks.items()}
    began = time.monotonic()
    results = train_together(list(tasks.values()))
    seconds = (time.monotonic() - began) / max(1, sum(work.values()))
    for (name, share), result in zip(work.items(), results, strict=True):
        one = _waiting[name]
        outcome = Outcome(result, seconds * share)
        _waiting[name] = _Waiting(one.parameters, one.instruction, one.begun, outcome)
