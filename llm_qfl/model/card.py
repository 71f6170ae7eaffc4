"""A model's card: what it is, what it was trained on, how good it is, what it cost, its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.formatting import (
    BASELINES,
    byte_size,
    describe_circuits,
    describe_privacy,
    display_safe,
    duration,
    figure,
    is_number,
    is_shifted,
    kept_rounds,
    percent,
    span,
    toml_value,
    whole,
    wilson_interval,
)
from core.settings.schema import FIELDS
from llm_qfl.model.run_facts import RUN_FILE

if TYPE_CHECKING:
    from llm_qfl.model.predictor import Predictor

Json = Mapping[str, Any]


def card(model: Predictor) -> str:
    """Write a model's card; as `Model.card`."""
    found = model.run
    sections = (
        ("Use", _use(model)),
        ("How good it is", _results(found)),
        ("What it was trained on", _data(model, found)),
        ("What the training cost", _cost(found)),
        ("Privacy", _privacy(found)),
        ("Limits", _limits(model, found)),
        ("Where it comes from", _provenance(model, found)),
    )
    body = "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections if lines)
    return f"{_front(model)}\n# {_title(model, found)}\n\n{_about(model, found)}\n\n{body}\n"


def _front(model: Predictor) -> str:
    """Return the hub's header; JSON strings are YAML strings."""
    tags = ["llm-qfl", "quantum-machine-learning", "federated-learning", model.kind]
    lines = ["---", "library_name: llm-qfl", f"tags: {json.dumps(tags)}"]
    if model.kind == "text":
        lines.append("pipeline_tag: text-classification")
    return "\n".join([*lines, "---", ""])


def _title(model: Predictor, found: Json) -> str:
    data = _safe(found.get("data") or model.about.data or "rows of its user's")
    return f"Quantum classifier of {data}"


def _safe(text: Any) -> str:
    """Make one line of anybody's text that Markdown shows as it is."""
    line = display_safe(" ".join(str(text).split()))
    return "".join(f"\\{x}" if x in "\\`*_[]<>#|" else x for x in line)


def _about(model: Predictor, found: Json) -> str:
    quantum = model.settings.quantum
    names = ", ".join(map(_safe, model.about.classes))
    what = "DNA sequences" if model.kind == "dna" else "texts"
    number = f", {whole(found['parameters'])} trained numbers" if found.get("parameters") else ""
    described = _safe(found.get("model") or f"{quantum.model}, {quantum.qubits} qubits")
    return (
        f"Tells {what} of {len(model.about.classes)} classes apart: {names}. A quantum circuit "
        f"({described}{number}) reads features that were projected to one angle a qubit "
        f"({_safe(found.get('features') or model.settings.features.kind)}). It was trained by "
        "LLM-QFL, quantum federated learning guided by language models: the rows stayed with the "
        "sites that hold them."
    )


def _use(model: Predictor) -> list[str]:
    row = "ACGTACGTACGT" if model.kind == "dna" else "a text"
    lines = ["```python", "import llm_qfl", "", 'model = llm_qfl.load("FOLDER")  # of this file']
    lines += [f'model.predict(["{row}"])', f'model.predict_proba(["{row}"])', "```"]
    if model.embeds and model.about.encoder:
        lines += ["", f"Its features are embeddings by `{_safe(model.about.encoder)}`."]
    return lines


def _results(found: Json) -> list[str]:
    """Return the table of the final test, with the baselines on the same rows."""
    summary = found.get("summary") or {}
    test, baselines = summary.get("test") or {}, summary.get("baselines") or {}
    if not is_number(test.get("accuracy")):
        return ["No final test is on record."]
    rows = [("this model", test)]
    rows += [(name, baselines[key]) for key, name in BASELINES if baselines.get(key)]
    if test.get("unseen"):
        rows.insert(1, ("this model, rows that are in no training row", test["unseen"]))
    lines = [_safe(found.get("outcome", "")), ""]
    lines += ["| | accuracy | 95 % interval | macro-F1 | macro-recall | loss, nats | rows |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, scores in rows:
        ends = span(wilson_interval(scores.get("accuracy"), scores.get("rows")))
        cells = [percent(scores.get("accuracy")), ends]
        cells += [figure(scores.get(key)) for key in ("macro_f1", "macro_recall", "loss")]
        lines.append(f"| {' | '.join([name, *cells, whole(scores.get('rows'))])} |")
    if is_number(test.get("calibration_error")):
        lines += ["", f"Calibration error (ECE): {percent(test['calibration_error'])}."]
    return lines


def _data(model: Predictor, found: Json) -> list[str]:
    rows = found.get("rows") or []
    lines = [f"- data: {_safe(found.get('data') or model.about.data or 'not on record')}"]
    if rows:
        lines.append(
            f"- training rows: {whole(sum(rows))} at {len(rows)} sites, {whole(min(rows))} to "
            f"{whole(max(rows))} a site"
        )
    return lines + [f"- note: {_safe(line)}" for line in found.get("warnings") or []]


def _cost(found: Json) -> list[str]:
    """Return the ledger's totals."""
    summary = found.get("summary") or {}
    spent = summary.get("ledger") or {}
    if not spent:
        return ["Not on record."]
    circuits = describe_circuits(spent.get("circuits"), summary.get("simulated_circuits"))
    shifted = ", its prior corrected on validation rows" * is_shifted(summary)
    return [
        f"- {whole(summary.get('rounds'))} rounds; the model: {kept_rounds(summary) or '-'}"
        f"{shifted}; stopped by: {_safe(summary.get('stop_reason', ''))}",
        f"- {circuits}; {whole(spent.get('shots'))} shots; "
        f"{duration(spent.get('qpu_seconds'))} of QPU time",
        f"- {whole(spent.get('steps'))} optimizer steps; {duration(spent.get('train_seconds'))} of "
        f"training, {duration(spent.get('idle_seconds'))} of waiting, summed over sites",
        f"- {byte_size(spent.get('bytes_up'))} from the sites, "
        f"{byte_size(spent.get('bytes_down'))} to them",
        f"- language models: {whole(spent.get('llm_tokens'))} tokens, "
        f"{duration(spent.get('llm_seconds'))}",
    ]


def _privacy(found: Json) -> list[str]:
    spent = describe_privacy((found.get("summary") or {}).get("privacy") or {})
    if not found:
        return ["Not on record."]
    return [f"- {_safe(line)}" for line in spent] or [
        "No differential privacy: rows stayed at the sites, and nothing bounds what the parameters "
        "and the projection (sums over training rows) tell of them."
    ]


def _limits(model: Predictor, found: Json) -> list[str]:
    """Say what the figures do not show."""
    settings = found.get("settings") or {}
    lines = [
        "- The figures are of rows like those of the training; on others it may do worse, and its "
        "probabilities are then not to be trusted.",
        "- Each row gets one of the classes above, also a row that belongs to none.",
        f"- {model.settings.quantum.qubits} qubits are simulated on any computer: this is no "
        "evidence of a quantum advantage. Compare with the baselines above.",
    ]
    trained = settings.get("quantum.backend")
    tested = model.about.whole_settings().quantum.backend
    if trained and trained != tested:
        lines.append(f"- Trained on `{trained}`; the test ran on `{tested}`.")
    if "synthetic" in str(found.get("data", "")):
        lines.append("- The data are synthetic: the model is a demonstration.")
    return lines


def _provenance(model: Predictor, found: Json) -> list[str]:
    versions, files = found.get("versions") or {}, model.about.files
    digests = {"settings": found.get("settings_sha256", "unknown")} | files
    digests.pop(RUN_FILE, None)
    digests |= {_safe(name): digest for name, digest in (found.get("code") or {}).items()}
    lines = [
        f"- LLM-QFL {_safe(versions.get('llm-qfl', ''))}, commit "
        f"{_safe(found.get('commit') or 'unknown')}, started "
        f"{_safe(found.get('started') or 'at an unknown time')}",
        *(f"- sha256 of {name}: `{_safe(digest)}`" for name, digest in digests.items() if digest),
    ]
    if versions:
        lines.append(f"- with {_safe(', '.join(f'{k} {v}' for k, v in versions.items()))}")
    changed = [
        f"{key} = {toml_value(value)}"
        for key, value in (found.get("settings") or {}).items()
        if key in FIELDS and value != FIELDS[key].default
    ]
    if changed:
        lines += ["", "Settings that are not the defaults:", "", "```toml", *changed, "```"]
    return lines
