"""The ClientApp that Flower starts: handlers only unpack, call and pack.

What a handler needs is imported when its message comes, since a deployed client may start a
process for each message.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from logging import ERROR
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log
from pydantic import ValidationError

from core import BudgetError, UserError, display_safe
from core.flower_compat import CLIENT_RAISED
from core.messages import (
    BUDGET_CODE,
    USER_ERROR_CODE,
    AdaptIns,
    EvaluateIns,
    RejoinIns,
    TrainIns,
    first_problem,
    pack_report,
    pack_site_report,
    read_instruction,
    read_parameters,
)
from core.private_ray import close_ray

close_ray()  # at import: the last moment before Flower's simulation starts Ray
app = ClientApp()

Handler = Callable[[Message, Context], RecordDict]


def answers(handler: Handler) -> Callable[[Message, Context], Message]:
    """Turn a handler's records into a reply, and what goes wrong into a one-line error."""

    @wraps(handler)
    def reply(message: Message, context: Context) -> Message:
        try:
            return Message(handler(message, context), reply_to=message)
        except UserError as error:
            log(ERROR, "%s", error)
            code = BUDGET_CODE if isinstance(error, BudgetError) else USER_ERROR_CODE
            return Message(Error(code, display_safe(error)), reply_to=message)
        except ValidationError as error:  # the one that a number or name of this site breaks
            log(ERROR, "%s", error)
            return Message(Error(USER_ERROR_CODE, first_problem(error)), reply_to=message)
        except Exception as error:
            # What a library says of what it could not take may quote a row.
            log(ERROR, "a defect, or a mistake that nobody foresaw", exc_info=error)
            return Message(Error(CLIENT_RAISED, _without_data(error)), reply_to=message)

    return reply


def _without_data(error: Exception) -> str:
    """Say what an exception is and where it was raised, without its own words."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"{type(error).__name__} in {where}; that node's log has the rest"


@app.query("prepare")
@answers
def prepare(message: Message, context: Context) -> RecordDict:
    """Answer PREPARE: rows, classes, backend, and the moments of the training features."""
    from client_app.site import recall
    from client_app.work import prepare_site

    about, moments = prepare_site(recall(context))
    return pack_site_report(about, moments)


@app.train("adapt")
@answers
def adapt(message: Message, context: Context) -> RecordDict:
    """Answer ADAPT: train the shared adapter for one round of averaging."""
    from client_app.adapting import adapt_round
    from client_app.site import recall

    arrays, told = read_instruction(message, AdaptIns)
    numbers, trained = adapt_round(recall(context), arrays, told)
    return pack_report(numbers, trained)


@app.query("adopt")
@answers
def adopt(message: Message, context: Context) -> RecordDict:
    """Answer ADOPT: keep the shared adapter; the moments of its features, if they are used."""
    from client_app.adapting import adopt_shared
    from client_app.site import note, recall

    memory = recall(context)
    numbers, moments = adopt_shared(memory, read_parameters(message))
    note(context, memory)
    return pack_report(numbers, moments)


@app.query("rejoin")
@answers
def rejoin(message: Message, context: Context) -> RecordDict:
    """Answer REJOIN: keep the shared adapter, if there is one, and say who this is."""
    from client_app.site import note, recall
    from client_app.work import prepare_site

    adapter, told = read_instruction(message, RejoinIns)
    memory = recall(context, told.run)
    if adapter:
        memory.adopt(adapter)
        note(context, memory)
    about, _ = prepare_site(memory)
    return pack_site_report(about)


@app.train()
@answers
def train(message: Message, context: Context) -> RecordDict:
    """Answer TRAIN: fine-tune the LLM if that is still to be done, then train."""
    from client_app.site import note, recall
    from client_app.work import train_round

    parameters, told = read_instruction(message, TrainIns)
    memory = recall(context, told.run, told.adapter)
    memory.fresh = memory.fresh and not told.fine_tuned
    numbers, trained = train_round(memory, parameters, told)
    memory.keep()
    note(context, memory)
    return pack_report(numbers, trained)


@app.evaluate()
@answers
def evaluate(message: Message, context: Context) -> RecordDict:
    """Answer EVALUATE: judge the global parameters on the site's own rows."""
    from client_app.site import recall
    from client_app.work import evaluate_round

    parameters, told = read_instruction(message, EvaluateIns)
    return pack_report(evaluate_round(recall(context, told.run, told.adapter), parameters, told))
