"""The local language model: what a teacher reaches, and what LoRA and QLoRA cost.

``python -m bench.language_models tweets --data FOLDER [--splits 0 1 2]``: MiniLM fine-tuned with
the default settings on 200, 600 and 1,500 tweets, with FOLDER holding ``tweet_eval/``. One pooled
split of the official validation and test rows, stratified: 2,000 test rows, a fifth of each
number of rows held out for early stopping and the temperature. Beside it logistic regression on
frozen embeddings of the same rows.

With ``--model smollm2 --layers 18`` the same of another model, and its own frozen embeddings.

``python -m bench.language_models models [--models minilm dna-tiny smollm2/18 ...]``: seconds a row
and memory of embedding and of fine-tuning, for the models that ship (``/18``: the first 18 layers,
``/dna``: DNA of 200 letters as 6-mers), each in a process of its own.

``python -m bench.language_models memory [--kinds lora qlora none]``: a model of GPT-2's size (12
layers, hidden 768, random weights, made from its config, a tokenizer made from scratch), every kind
in a process of its own, so that the peak of its memory is its own.

``python -m bench.language_models sizes``: parameters and adapters of published shapes, counted
on the meta device; no weight is made.

All print Markdown rows. One torch thread; on the CPU unless ``--device cuda``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import LlmSettings

EPOCHS = {200: 5, 600: 3, 1500: 2}
TEST_ROWS = 2000
HELD_OUT = 0.2
WORDS = 5000
Rows = tuple[list[str], np.ndarray]


def pooled_tweets(folder: Path) -> Rows:
    """Return the official validation and test tweets, and their labels, (rows,)."""
    place = folder / "tweet_eval" / "sentiment"
    texts: list[str] = []
    labels: list[int] = []
    for part in ("val", "test"):
        numbers = (place / f"{part}_labels.txt").read_text(encoding="utf-8").split()
        lines = (place / f"{part}_text.txt").read_text(encoding="utf-8").split("\n")
        texts += lines[: len(numbers)]
        labels += [int(number) for number in numbers]
    return texts, np.array(labels)


def split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Return shuffled training and test rows; every class has its share in both."""
    from sklearn.model_selection import train_test_split

    texts, labels = rows
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_ROWS, stratify=labels, random_state=seed
    )
    first, second = (([texts[i] for i in part], labels[part]) for part in (train, test))
    return first, second


def frozen(
    train: Rows, test: Rows, sizes: Sequence[int], settings: LlmSettings
) -> list[dict[str, Any]]:
    """Return the test scores of logistic regression on frozen embeddings, one for each size."""
    import llm
    from data import linear_baseline

    many = max(sizes)
    seen, new = (llm.embed(texts, settings, "text") for texts in (train[0][:many], test[0]))
    return [linear_baseline(seen[:n], train[1][:n], new, test[1], 3, 0) for n in sizes]


def fine_tuned(
    train: Rows, test: Rows, settings: LlmSettings, seed: int
) -> tuple[np.ndarray, float, int]:
    """Return calibrated test logits (rows, C), CPU seconds of fine-tuning, and its best epoch."""
    import llm

    held = round(HELD_OUT * len(train[1]))
    texts, labels = train
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        rows = texts[held:], labels[held:], texts[:held], labels[:held]
        teacher = llm.fine_tune(llm.Task(*rows, 3, settings, "text", seed), Path(folder))
        seconds = time.process_time() - began
        assert teacher.folder is not None
        logits = llm.load_fine_tuned(teacher.folder, settings.device)(test[0])
    return logits / teacher.temperature, seconds, int(teacher.metrics["best_epoch"])


def tweets(options: argparse.Namespace) -> None:
    """Print a row for every split and number of rows."""
    from llm.calibration import accuracy, loss, macro_f1

    def figures(*values: float) -> str:
        return "{:.3f} / {:.3f} / {:.2f}".format(*values)

    rows = pooled_tweets(options.data)
    rates = {"learning_rate": options.rate} if options.rate else {}
    chosen = LlmSettings(
        model=options.model,
        layers=options.layers,
        device=options.device,
        peft=options.peft,
        **rates,
    )
    print("| split | rows | frozen + LR | fine-tuned: accuracy / macro-F1 / loss | epoch | CPU-s |")
    print("|---|---|---|---|---|---|", flush=True)
    for number in options.splits:
        train, test = split(rows, number)
        bases = frozen(train, test, options.sizes, chosen)
        for size, base in zip(options.sizes, bases, strict=True):
            epochs = EPOCHS[size]
            few = train[0][:size], train[1][:size]
            settings = chosen.model_copy(update={"epochs": epochs})
            logits, seconds, epoch = fine_tuned(few, test, settings, options.seed)
            left = figures(base["accuracy"], base["macro_f1"], base["loss"])
            measured = (measure(logits, test[1]) for measure in (accuracy, macro_f1, loss))
            cells = f"{figures(*measured)} | {epoch} of {epochs} | {seconds:.0f}"
            print(f"| {number} | {size:,} | {left} | {cells} |", flush=True)


def make_model(folder: Path) -> None:
    """Save a GPT-2 of the published size with random weights, and a tokenizer of our own."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    from llm.device import quiet

    quiet()
    names = ["<unk>", "<end>", *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "eos_token": "<end>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024, **special)
    torch.manual_seed(0)
    GPT2Model(GPT2Config()).save_pretrained(folder)
    fast.save_pretrained(folder)


def made_up(count: int, words: int) -> Rows:
    """Return texts of random words whose first word tells the class, and labels, (rows,)."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    texts = [" ".join(f"w{word}" for word in rng.integers(10, WORDS, words)) for _ in labels]
    return [f"w{label} {text}" for label, text in zip(labels, texts, strict=True)], labels


def one_kind(options: argparse.Namespace) -> None:
    """Train one kind in this process, and print its figures as JSON."""
    import torch

    from llm import adapters
    from llm.device import choose_device, device_of, seeded
    from llm.sources import resolve
    from llm.training import Rows, predict, train

    torch.set_num_threads(1)
    device = choose_device(options.device)
    settings = LlmSettings(
        model=options.folder, peft=options.kind, device=options.device, epochs=1, patience=0
    )
    texts, labels = made_up(options.rows, options.words)
    start = time.perf_counter()
    with seeded(0, device):
        model, module = adapters.build(resolve(options.folder, "text"), 2, settings, device)
        tokens = model.tokens(texts, "text", options.words + 1)
        loaded, loaded_peak = time.perf_counter() - start, peak(device_of(module))
        rows, none = Rows(tokens, labels), Rows(model.tokens([], "text"), labels[:0])
        start, busy = time.perf_counter(), time.process_time()
        train(module, model.heads, rows, none, settings, 0, lambda _: None)
        trained, busy = time.perf_counter() - start, time.process_time() - busy
        start = time.perf_counter()
        predict(module, tokens)
        predicted = time.perf_counter() - start
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    trainable, _ = adapters.count(module)
    found = {
        "weights": weights, "trainable": trainable, "load": loaded, "loaded_peak": loaded_peak,
        "train": trained / options.rows, "cpu": busy / options.rows,
        "predict": predicted / options.rows, "peak": peak(device_of(module)),
    }  # fmt: skip
    print(json.dumps(found))


def peak(device: Any) -> float:
    """Return the most memory so far, bytes: of this process, or of torch on the GPU."""
    import torch

    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(options: argparse.Namespace) -> None:
    """Print a row for every kind, each from a process of its own."""
    heads = ("kind", "weights MB", "trainable", "load s", "peak MB loaded", "peak MB trained")
    print("| " + " | ".join([*heads, "ms a row: train", "CPU ms", "predict"]) + " |")
    print("|---" * 9 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        for kind in options.kinds:
            command = [sys.executable, "-m", "bench.language_models", "kind", "--kind", kind]
            command += ["--folder", folder, "--rows", str(options.rows)]
            command += ["--words", str(options.words), "--device", options.device]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {kind} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            megabytes = [f"{found[name] / 1e6:,.0f}" for name in ("weights", "loaded_peak", "peak")]
            speeds = [f"{1000 * found[name]:,.0f}" for name in ("train", "cpu", "predict")]
            cells = [kind, megabytes[0], f"{found['trainable']:,}", f"{found['load']:.1f}"]
            print("| " + " | ".join([*cells, *megabytes[1:], *speeds]) + " |", flush=True)


MODELS = ("minilm", "dna-tiny", "smollm2/18", "smollm2", "smollm2/18/dna")
KINDS = ("embed", "lora", "qlora")


def one_model(options: argparse.Namespace) -> None:
    """Embed or train one model in this process, and print its figures as JSON."""
    import torch

    from llm import adapters
    from llm.device import CPU, seeded
    from llm.models import load_base
    from llm.sources import resolve
    from llm.states import pooled_states
    from llm.training import Rows, predict, train

    torch.set_num_threads(1)
    name, *more = options.folder.split("/")
    layers = next((int(part) for part in more if part.isdigit()), 0)
    dna = name == "dna-tiny" or "dna" in more
    kind: Any = "dna" if dna else "text"
    texts, labels = dna_rows(options.rows) if dna else first_tweets(options.data, options.rows)
    longest = 1024 if dna and name != "dna-tiny" else 0
    settings = LlmSettings(
        model=name, layers=layers, epochs=1, patience=0, device="cpu", max_tokens=longest,
        peft="lora" if options.kind == "embed" else options.kind,
    )  # fmt: skip
    source = resolve(name, kind, layers=layers)
    if options.kind == "embed":
        base = load_base(name, kind, layers)
        tokens = base.tokens(texts, kind, longest)
        busy = time.process_time()
        pooled_states(base.module, tokens, base.hidden)
        spent, predicted = time.process_time() - busy, 0.0
    else:
        with seeded(0, CPU):
            model, module = adapters.build(source, 3, settings, CPU)
            tokens = model.tokens(texts, kind, longest)
            none = Rows(model.tokens([], kind), labels[:0])
            busy = time.process_time()
            train(module, model.heads, Rows(tokens, labels), none, settings, 0, lambda _: None)
            spent, busy = time.process_time() - busy, time.process_time()
            predict(module, tokens)
            predicted = time.process_time() - busy
    found = {"spent": spent / len(texts), "predict": predicted / len(texts), "peak": peak(CPU)}
    print(json.dumps({**found, "tokens": float(tokens.lengths.mean())}))


def dna_rows(count: int) -> Rows:
    """Return random sequences of 200 letters and labels, (rows,)."""
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ACGT"), 200)) for _ in range(count)]
    return letters, np.arange(count) % 2


def first_tweets(folder: Path, count: int) -> Rows:
    """Return the first tweets of `pooled_tweets`, and their labels, (rows,)."""
    texts, labels = pooled_tweets(folder)
    return texts[:count], labels[:count]


def shipped_models(options: argparse.Namespace) -> None:
    """Print a row for every model and kind, each from a process of its own."""
    print("| model | kind | tokens a row | CPU-s a row | predict, CPU-s a row | peak MB |")
    print("|---" * 6 + "|", flush=True)
    for model in options.models:
        for kind in KINDS:
            if (model, kind) == ("dna-tiny", "qlora"):
                continue  # it is refused
            command = [sys.executable, "-m", "bench.language_models", "model", "--kind", kind]
            command += ["--folder", model, "--rows", str(options.rows), "--data", str(options.data)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {model} | {kind} | failed: {done.stderr.strip().splitlines()[-1]} |")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{found['tokens']:.0f}", f"{found['spent']:.4f}", f"{found['predict']:.4f}"]
            cells += [f"{found['peak'] / 1e6:,.0f}"]
            print(f"| {model} | {kind} | " + " | ".join(cells) + " |", flush=True)


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "MiniLM-L6": ("Bert", {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    "gpt2": ("GPT2", {}),
    "Llama-3.2-1B": (
        "Llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
        }
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64},
    ),
    "DeepSeek-LLM-7B": (
        "Llama",
        {
            "vocab_size": 102_400,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 30,
        }
        | {"num_attention_heads": 32, "num_key_value_heads": 32},
    ),
}
"""The config of transformers that begins with the first name, with these values."""


def sizes(options: argparse.Namespace) -> None:
    """Print a row for every shape in `SHAPES`: rank 8, all linear layers, a head of 2 classes."""
    import torch
    import transformers
    from transformers.pytorch_utils import Conv1D

    print("| shape | parameters | float32 | in 4 bits | adapter and head |\n|---|---|---|---|---|")
    for name, (kind, values) in SHAPES.items():
        config = getattr(transformers, f"{kind}Config")(**values)
        with torch.device("meta"):
            model = getattr(transformers, f"{kind}Model")(config)
        layers = [
            tuple(module.weight.shape)
            for path, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and "pooler" not in path
        ]
        total = sum(p.numel() for p in model.parameters())
        linear = sum(rows * columns for rows, columns in layers)
        # A byte holds two weights; of 64 weights a scale in 8 bits, of 256 scales one in 32.
        small = 4 * (total - linear) + linear * (0.5 + 1 / 64 + 4 / (64 * 256))
        adapter = 4 * (8 * sum(map(sum, layers)) + 2 * config.hidden_size)
        megabytes = " | ".join(f"{size / 1e6:,.2f} MB" for size in (4 * total, small, adapter))
        print(f"| {name} | {total:,} | {megabytes} |")


PARTS = {
    "tweets": tweets, "models": shipped_models, "memory": memory, "sizes": sizes,
    "kind": one_kind, "model": one_model,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.language_models", description=__doc__)
    parser.add_argument("what", choices=PARTS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(EPOCHS), choices=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="llm.learning_rate; 0: the default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--layers", type=int, default=0, help="llm.layers")
    parser.add_argument("--peft", default="auto", choices=("auto", "lora", "qlora", "none"))
    parser.add_argument("--kinds", nargs="+", default=["lora", "qlora", "none"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--words", type=int, default=63)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    PARTS[options.what](options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
