"""The ClientApp that Flower starts: handlers only unpack, call and pack.

Torch and the other heavy libraries are imported by what uses them, since a deployed client may
start a process for each message.
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

from client_app.masked_moments import masked_moments
from client_app.masking import (
    NoKeysError,
    begin_masking,
    check_masks,
    publish_keys,
    unmask_answer,
)
from client_app.placement import handled_elsewhere, node_name
from client_app.preload import preload as preload
from client_app.preparation import adapt_round, prepare_site, probe_features, take_adapter
from client_app.privacy_account import charge_moments, check_first_step
from client_app.process_cache import settings_of
from client_app.site import load_cache, note
from client_app.site_log import noted
from client_app.together import take_trained
from client_app.work import evaluate_round, train_round
from core import BudgetError, UserError
from core.flower_compat import CLIENT_RAISED, prepare_ray
from core.formatting import display_safe
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
from core.secagg import SecAggError
from core.secure_messages import (
    KEYS_CODE,
    KeysIns,
    MomentsIns,
    UnmaskIns,
    pack_answer,
    pack_masked,
    pack_masked_moments,
)

# At import: the last moment before Flower's simulation starts Ray.
prepare_ray(Path(__file__).parents[1])
app = ClientApp()

Handler = Callable[[Message, Context], RecordDict]


def answers(handler: Handler) -> Callable[[Message, Context], Message]:
    """Turn a handler's records into a reply, and what goes wrong into a one-line error."""

    @wraps(handler)
    def reply(message: Message, context: Context) -> Message:
        try:
            if (other := handled_elsewhere(app, message, context)) is not None:
                return other
            answer = Message(handler(message, context), reply_to=message)
        except Exception as error:
            answer = Message(_error_reply(error), reply_to=message)
        return noted(message, answer, context)

    return reply


def _error_reply(error: Exception) -> Error:
    """Log an exception, and return what the server may know of it."""
    if isinstance(error, UserError):
        log(ERROR, "%s", error)
        codes = {BudgetError: BUDGET_CODE, NoKeysError: KEYS_CODE}
        code = next((c for kind, c in codes.items() if isinstance(error, kind)), USER_ERROR_CODE)
        return Error(code, display_safe(error.elsewhere or error) + node_name())
    if isinstance(error, SecAggError):
        log(ERROR, "%s", error)
        return Error(USER_ERROR_CODE, display_safe(f"refused: {error}") + node_name())
    if isinstance(error, ValidationError):  # the one that a number or name of this site breaks
        log(ERROR, "%s", error)
        return Error(USER_ERROR_CODE, first_problem(error))
    log(ERROR, "a defect, or a mistake that nobody foresaw", exc_info=error)
    # Without its own words: what a library says of what it could not take may quote a row.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    text = f"{type(error).__name__} in {where}; that node's log has the rest{node_name()}"
    return Error(CLIENT_RAISED, text)


@app.query("prepare")
@answers
def prepare(message: Message, context: Context) -> RecordDict:
    """Answer PREPARE: rows, classes, backend, and the moments of the training features."""
    cache = load_cache(context)
    masks = settings_of(context.run_config, {}).privacy.secure_aggregation
    check_masks(cache, "a sum of moments" if masks else "moments", masks=masks)
    about, found = prepare_site(cache)
    if found is None:  # they leave masked, in the answer to MOMENTS
        check_first_step(cache)
    else:
        charge_moments(cache)
    return pack_site_report(about, found)


@app.query("probe")
@answers
def probe(message: Message, context: Context) -> RecordDict:
    """Answer PROBE: how linear probes of each kind of features do on the validation rows."""
    return pack_report(probe_features(load_cache(context), read_parameters(message)))


@app.train("adapt")
@answers
def adapt(message: Message, context: Context) -> RecordDict:
    """Answer ADAPT: train the shared adapter for one round of averaging."""
    arrays, instruction = read_instruction(message, AdaptIns)
    return pack_report(*adapt_round(load_cache(context), arrays, instruction.round))


@app.query("adopt")
@answers
def adopt(message: Message, context: Context) -> RecordDict:
    """Answer ADOPT: store the shared adapter; the moments of its features, if they are used."""
    cache = load_cache(context)
    report, moments = take_adapter(cache, read_parameters(message))
    note(context, cache)
    return pack_report(report, moments)


@app.query("rejoin")
@answers
def rejoin(message: Message, context: Context) -> RecordDict:
    """Answer REJOIN: store the shared adapter, if there is one, and say who this is."""
    adapter, instruction = read_instruction(message, RejoinIns)
    cache = load_cache(context, instruction.run)
    if adapter:
        cache.set_adapter(adapter)
        note(context, cache)
    about, _ = prepare_site(cache)
    return pack_site_report(about)


@app.query("keys")
@answers
def keys(message: Message, context: Context) -> RecordDict:
    """Answer KEYS: public keys of secure aggregation for the run's rounds."""
    _, instruction = read_instruction(message, KeysIns)
    return pack_answer(publish_keys(load_cache(context, instruction.run), context, instruction))


@app.train()
@answers
def train(message: Message, context: Context) -> RecordDict:
    """Answer TRAIN: fine-tune the LLM if that is still to be done, then train."""
    parameters, instruction = read_instruction(message, TrainIns)
    fine_tuned = instruction.fine_tuned
    cache = load_cache(context, instruction.run, instruction.adapter, fine_tuned=fine_tuned)
    masking = begin_masking(cache, context, parameters, instruction)
    begun, outcome = take_trained(cache, parameters, instruction)
    report, leaving = train_round(cache, begun, instruction, outcome)
    cache.store()
    note(context, cache)
    if masking is not None:
        return pack_masked(report, masking.masked(context, leaving))
    return pack_report(report, leaving.parameters)


@app.query("moments")
@answers
def moments(message: Message, context: Context) -> RecordDict:
    """Answer MOMENTS: the moments of the training features, masked."""
    _, instruction = read_instruction(message, MomentsIns)
    cache = load_cache(context, instruction.run)
    return pack_masked_moments(masked_moments(cache, context, instruction))


@app.query("unmask")
@answers
def unmask(message: Message, context: Context) -> RecordDict:
    """Answer UNMASK: the shares that take a round's masks off its sum, once."""
    _, instruction = read_instruction(message, UnmaskIns)
    cache = load_cache(context, instruction.run)
    return pack_answer(unmask_answer(cache, context, instruction))


@app.evaluate()
@answers
def evaluate(message: Message, context: Context) -> RecordDict:
    """Answer EVALUATE: evaluate the global parameters on the site's own rows."""
    parameters, instruction = read_instruction(message, EvaluateIns)
    cache = load_cache(context, instruction.run, instruction.adapter)
    return pack_report(evaluate_round(cache, parameters, instruction))
