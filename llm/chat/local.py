"""An agent's language model in this process: any causal LM that transformers loads.

It either writes its answer token by token, constrained to the decision's schema by a grammar
(llguidance), or scores the labels of a closed set. Both are greedy: the same question has the
same answer.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import jinja2
import torch
from transformers import GenerationConfig

from core import explain
from core.settings.agent import AgentSettings
from llm.chat.grammar import ConstrainedDecoder, grammar_tokenizer
from llm.chat.model import (
    ACCEPTED,
    SETTING,
    SMALL,
    Answer,
    ChatModelError,
    Messages,
    Question,
    answer_tokens,
    find_model,
    time_limit,
    timed,
)
from llm.device import choose_device, device_of, has_bfloat16, quiet
from llm.encoders import longest_input
from llm.sources import Source, first_line, loading

_CUE = "Answer:\n"
WHOLE = (
    "a whole, undamaged causal language model of transformers without code of its own, and its "
    "tokenizer, that the memory holds"
)


@dataclass
class LocalChatModel:
    """A chat model in this process.

    Parameters
    ----------
    source : Source
        Which model.
    module : transformers.PreTrainedModel
        It, in eval mode.
    tokenizer : transformers tokenizer
        Its own.
    max_tokens : int
        Most tokens of an answer.
    timeout : float
        Seconds after which no further token is written, and no choice is of use; reading the
        question is not interrupted.
    grammar : llguidance.LLTokenizer or None
        The tokenizer as grammars see it; None: answers are chosen, not written.
    """

    source: Source
    module: Any
    tokenizer: Any
    max_tokens: int
    timeout: float
    grammar: Any = None

    @property
    def name(self) -> str:
        """The last part of its folder or hub id."""
        return self.source.short

    @property
    def closed(self) -> bool:
        """Whether it chooses among options: it has no grammar to write by."""
        return self.grammar is None

    def ask(self, question: Question) -> Answer:
        """Write an answer within the schema, or choose one of the options.

        Raises
        ------
        ChatModelError
            If the time is up before the answer is complete, the question is too long, or
            anything fails on the way.
        """
        return timed(partial(self._ask, question))

    def _ask(self, question: Question) -> Answer:
        try:
            with torch.inference_mode(), _all_threads():
                ids = self._tokens(question.messages)
                return (self._choose if question.options else self._write)(question, ids)
        except ChatModelError:
            raise
        except Exception as error:  # of memory, of the grammar, of a model's own code: no answer
            why = f"{self.name} failed ({type(error).__name__}: {first_line(error)})"
            raise ChatModelError(why) from error

    def _tokens(self, messages: Messages) -> torch.Tensor:
        """Return a chat's token ids, shape (1, tokens): by the model's template, or plain."""
        if not self.tokenizer.chat_template:
            ids = self.tokenizer(plain_chat(messages), return_tensors="pt")["input_ids"]
        else:
            try:
                ids = self._by_template(messages)
            except jinja2.TemplateError:  # some know no system message
                first, second, *rest = messages
                merged = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
                ids = self._by_template((merged, *rest))
        length, limit = ids.shape[1], longest_input(self.module)
        if length + self.max_tokens > limit:
            given = f"a question of {length} tokens and an answer of up to {self.max_tokens}"
            accepted = f"together at most the {limit} that {SETTING} {self.name} reads"
            fix = "choose a model that reads more, or lower agent.max_tokens"
            raise ChatModelError(explain(given, accepted, fix), lasting=True)
        found: torch.Tensor = ids.to(device_of(self.module))
        return found

    def _by_template(self, messages: Messages) -> torch.Tensor:
        encoded = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            enable_thinking=False,  # templates that know no such switch pass it over
        )
        ids: torch.Tensor = encoded["input_ids"]
        return ids

    def _write(self, question: Question, ids: torch.Tensor) -> Answer:
        """Write an answer, each token within the grammar."""
        read = ids.shape[1]
        seconds, setting = time_limit(self.timeout, question)
        until = time.monotonic() + seconds
        decoder = ConstrainedDecoder(self.grammar, question.schema, read, until)
        written = self._generate(
            ids, self.max_tokens, logits_processor=[decoder.allow], stopping_criteria=[decoder.ends]
        )
        tokens = written.sequences[0, read:]
        answer = Answer(
            text=self.tokenizer.decode(tokens, skip_special_tokens=True),
            prompt_tokens=read,
            answer_tokens=len(tokens),
            truncated=not decoder.complete,
        )
        if decoder.late and not decoder.complete:
            late = f"{self.name} had no whole answer within {seconds:g} s ({setting})"
            raise ChatModelError(late, answer=answer)
        return answer

    def _choose(self, question: Question, ids: torch.Tensor) -> Answer:
        """Choose the option whose label is likeliest as the answer's beginning."""
        began = time.monotonic()
        read = self._generate(ids, 1, output_logits=True)
        start = torch.log_softmax(read.logits[0][0].float(), dim=-1)
        scores, scored = [], 0
        for label in question.options:
            tokens = self.tokenizer.encode(label, add_special_tokens=False)
            scores.append(self._likelihood(tokens, start, read))
            scored += len(tokens)
        seconds, setting = time_limit(self.timeout, question)
        if time.monotonic() - began > seconds:
            raise ChatModelError(f"{self.name} chose nothing within {seconds:g} s ({setting})")
        shares = torch.softmax(torch.tensor(scores, dtype=torch.float64), dim=0).tolist()
        if not all(map(math.isfinite, shares)):
            raise ValueError("the scores of its answers are no numbers")
        likelihoods = dict(zip(question.options, shares, strict=True))
        best = max(likelihoods, key=likelihoods.__getitem__)
        return Answer(
            text=question.options[best],
            prompt_tokens=ids.shape[1],
            answer_tokens=scored,
            likelihoods=likelihoods,
        )

    def _likelihood(self, tokens: list[int], start: torch.Tensor, read: Any) -> float:
        """Return log p(tokens | question), nats; the question was read once, into the cache."""
        total = float(start[tokens[0]])
        if len(tokens) == 1:
            return total
        label = torch.tensor([tokens[:-1]], device=start.device)
        # transformers 5.24 calls past_key_values cache.
        cache = copy.deepcopy(getattr(read, "cache", None) or read.past_key_values)
        new = "cache" in inspect.signature(self.module.forward).parameters
        named = {"cache" if new else "past_key_values": cache}
        logits = self.module(label, **named, use_cache=True).logits[0]
        following = torch.log_softmax(logits.float(), dim=-1)
        return total + sum(float(following[k, token]) for k, token in enumerate(tokens[1:]))

    def _generate(
        self, ids: torch.Tensor, most: int, output_logits: bool = False, **more: Any
    ) -> Any:
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=end_tokens(self.module, self.tokenizer) or None,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            return_dict_in_generate=True,
            use_cache=True,
            output_logits=output_logits,
        )
        mask = torch.ones_like(ids)
        return self.module.generate(ids, attention_mask=mask, generation_config=config, **more)


@contextmanager
def _all_threads() -> Iterator[None]:
    """Let torch use every core that this process may; the server's evaluation sets few for itself.

    `OMP_NUM_THREADS` holds where it is set.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(int(wanted) if wanted.isdecimal() and int(wanted) else cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plain_chat(messages: Messages) -> str:
    """Write a chat as plain text, for models without a template of their own."""
    parts = [(_CUE if m["role"] == "assistant" else "") + m["content"] for m in messages]
    return "\n\n".join([*parts, _CUE])


def end_tokens(module: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer; chat models have several."""
    known = module.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    return sorted({int(x) for x in (*listed, tokenizer.eos_token_id) if x is not None})


def open_chat_model(settings: AgentSettings, clients: int, seed: int) -> LocalChatModel:
    """Load the model that `agent.model` names, once for the whole run; nothing is drawn.

    Parameters
    ----------
    settings : AgentSettings
        The agent's settings.
    clients : int
        Clients of the run, which an answer must have room for.
    seed : int
        Not used: nothing is drawn.

    Raises
    ------
    core.ModelError
        If it is missing, gated, unreachable, damaged, or no causal language model.
    """
    quiet()
    source = find_model(settings)
    device = choose_device(settings.device, "agent.device")
    module, tokenizer = _load(source, device)
    grammar = None
    if not _closed(settings.decoding, module):
        size = int(module.config.get_text_config().vocab_size)
        grammar = grammar_tokenizer(tokenizer, size, end_tokens(module, tokenizer), source.name)
    most = answer_tokens(settings, clients) if grammar else 1
    return LocalChatModel(source, module, tokenizer, most, settings.timeout, grammar)


def _closed(decoding: str, module: Any) -> bool:
    """Say whether a model chooses: by default a small one, and where llguidance is not there."""
    if decoding != "auto":
        return decoding == "choices"
    return module.num_parameters() < SMALL or find_spec("llguidance") is None


def _dtype(device: torch.device, config: Any) -> torch.dtype:
    """Return the numbers to compute in: a CPU takes bfloat16 if it and the checkpoint have it."""
    if device.type != "cpu":
        return torch.bfloat16 if has_bfloat16(device) else torch.float16
    narrow = getattr(config, "dtype", None) == torch.bfloat16
    return torch.bfloat16 if narrow and torch.cpu._is_avx512_bf16_supported() else torch.float32


def _load(source: Source, device: torch.device) -> tuple[Any, Any]:
    """Load model and tokenizer; what goes wrong becomes an error of one line."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    with loading(source, SETTING, ACCEPTED, WHOLE):
        config = AutoConfig.from_pretrained(**source.loading)
        dtype = _dtype(device, config)
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise TypeError(f"{config.model_type} fills gaps, it does not write")
        tokenizer = AutoTokenizer.from_pretrained(**source.loading)
        module, info = AutoModelForCausalLM.from_pretrained(
            **source.loading_weights, dtype=dtype, output_loading_info=True
        )
        if missing := sorted(info["missing_keys"]):  # transformers would draw them at random
            raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
        module.to(device).eval()
    # A checkpoint's own habits of sampling and repetition are none of the agent's.
    module.generation_config = GenerationConfig(
        eos_token_id=module.generation_config.eos_token_id,
        bos_token_id=module.generation_config.bos_token_id,
    )
    return module, tokenizer
