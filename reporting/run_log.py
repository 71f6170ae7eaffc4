"""Checks a run's log: ``python -m reporting.run_log RUN [SITE]``; prints what it finds as JSON.

The chain must hold from its first line (`core.storage.chain`), and what the folder holds must be
what the log says: configuration, decisions, checkpoints, summary and model. With a site's own list
(``privacy.site_log``) the messages that it received and the answers that it gave must be in the
log. `llm-qfl audit --log` shows it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core import UserError, explain, read_file, read_jsonl
from core.storage.chain import ChainLines, read_chain, sha256
from strategies.journal import LOG, MODEL

ANSWERED = ("answered", "answered late")


@dataclass(frozen=True)
class LogFinding:
    """What checking a run's log gave.

    Attributes
    ----------
    account, bundle, code : str
        Who submitted the run as Flower knows it, and the digests of its bundle and of our code;
        empty outside Flower's runtime.
    lines : list of dict
        The lines that hold, with the ``clients`` that a message went to or came from.
    head : str
        Digest of the last line that holds.
    ended : bool
        Whether the run has written its end.
    broken : str
        Where the chain breaks; empty: nowhere.
    differs : list of str
        What else does not fit.
    notes : list of str
        What is unusual and no fault.
    """

    account: str
    bundle: str
    code: str
    lines: list[dict[str, Any]]
    head: str
    ended: bool
    broken: str
    differs: list[str]
    notes: list[str]


def check_log(folder: Path, site: Path | None = None) -> LogFinding:
    """Check a run's log against itself, its folder, and a site's list.

    Parameters
    ----------
    folder : Path
        The run folder.
    site : Path, optional
        A site's list of what it received and answered.

    Raises
    ------
    UserError
        If there is no log, or no such list.
    """
    try:
        chain = read_chain(folder / LOG)
    except OSError as error:
        given = f"{str(folder / LOG)!r} ({error.strerror})"
        accepted = "the log of a run of this version or a later one"
        raise UserError(given, accepted, "name the folder of such a run") from None
    lines, differs = chain.lines, []
    if not chain.broken:
        differs = [*_configuration(folder, lines), *_decisions(folder, lines)]
        differs += [*_checkpoints(folder, lines), *_end(folder, lines)]
    if site is not None:
        differs += _site(site, chain)
    submitted: Mapping[str, Any] = next(
        (one for one in reversed(lines) if one["event"] == "submitted"), {}
    )
    ended = bool(lines) and lines[-1]["event"] == "end"
    return LogFinding(
        account=str(submitted.get("account", "")),
        bundle=str(submitted.get("bundle", "")),
        code=str(submitted.get("code", "")),
        lines=list(_named(lines)),
        head=chain.head,
        ended=ended,
        broken=chain.broken,
        differs=differs,
        notes=_notes(chain, ended),
    )


def _notes(chain: ChainLines, ended: bool) -> list[str]:
    notes = [f"line {n} was left half written by a process that was killed" for n in chain.torn]
    notes += [
        f"resumed after round {one['round']} (line {one['line']})"
        for one in chain.lines
        if one["event"] == "resumed"
    ]
    if chain.lines and chain.lines[0]["event"] == "resumed":
        notes.append(
            f"the log begins after round {chain.lines[0]['round']}: before, there was none"
        )
    if not ended and not chain.broken:
        notes.append("no end is logged: the run goes on, was killed, or lines were cut off")
    return notes


def _named(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the lines with the clients of their nodes; those of the preparation by what follows."""
    clients: dict[str, str] = {}
    for one in lines:
        if one["event"] == "sites":
            clients |= {str(node): client for client, node in one["clients"].items()}
    for one in lines:
        sites = one.get("sites")
        who = sorted((clients.get(n, f"node {n}") for n in sites), key=_order) if sites else []
        yield {**one, **({"clients": who} if sites else {})}


def _order(client: str) -> tuple[int, str]:
    return (int(client), "") if client.isdecimal() else (sys.maxsize, client)


# --- what the folder holds ----------------------------------------------------------------------


def _configuration(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    wanted = [one for one in lines if one["event"] in ("begun", "resumed")]
    if not wanted:
        yield "the log does not say how the run began"
    elif wanted[-1]["config"] != _digest(folder / "config.json"):
        yield f"config.json is not the one of line {wanted[-1]['line']}"


def _decisions(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Compare ``agent.jsonl``; what a resumed run has done again counts as it was done last."""
    logged: dict[int, Mapping[str, Any]] = {}
    for one in lines:
        if one["event"] == "resumed":
            logged = {n: line for n, line in logged.items() if n <= one["round"]}
        if one["event"] == "decided":
            logged[one["round"]] = one
    try:
        texts = read_file(folder / "agent.jsonl").removesuffix(b"\n").split(b"\n")
    except OSError:
        texts = []
    found = {number: sha256(text) for number, text in enumerate(texts, 1) if text}
    begun = lines[0]["round"] if lines and lines[0]["event"] == "resumed" else 0
    for number in sorted(logged | found):
        if number <= begun and number not in logged:
            continue  # of a version without a log
        if number not in logged:
            yield f"the decision of round {number} is in agent.jsonl and not in the log"
        elif number not in found:
            yield f"the decision of round {number} is in the log and not in agent.jsonl"
        elif logged[number]["sha256"] != found[number]:
            line = logged[number]["line"]
            yield f"the decision of round {number} in agent.jsonl is not the one of line {line}"


def _checkpoints(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    logged = {one["round"]: one for one in lines if one["event"] == "aggregated"}
    for number, one in sorted(logged.items()):
        path = folder / "checkpoint" / f"round-{number:03d}" / MODEL
        found = _digest(path)
        if found and found != one["sha256"]:
            yield f"checkpoint/{path.parent.name}/{MODEL} is not the one of line {one['line']}"


def _end(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not lines or lines[-1]["event"] != "end":
        if (folder / "summary.json").exists() and any(
            one["event"] == "end" for one in read_jsonl(folder / "metrics.jsonl")
        ):
            yield "the run has ended and its log has not: lines were cut off"
        return
    for name, digest in lines[-1]["files"].items():
        if digest != _digest(folder / name):
            yield f"{name} is not the one of line {lines[-1]['line']}"


def _digest(path: Path) -> str:
    try:
        return sha256(read_file(path))
    except OSError:
        return ""


# --- what a site says -----------------------------------------------------------------------------


def _site(path: Path, chain: ChainLines) -> Iterator[str]:
    """Compare a site's own list with the log: messages, answers, and the heads it was shown."""
    try:
        read_file(path)
    except OSError as error:
        given = f"{str(path)!r} ({error.strerror})"
        raise UserError(given, "a site's list (privacy.site_log)", "name such a file") from None
    runs = {str(one["run"]) for one in chain.lines if one["event"] == "submitted"}
    own = [one for one in read_jsonl(path) if str(one.get("run")) in runs]
    if not own:
        yield f"{str(path)!r} holds no message of this run"
    heads = {one["digest"] for one in chain.lines}
    sent, answered = (_passed(chain, events) for events in (("sent",), ANSWERED))
    for one in own:
        node, what = str(one["node"]), f"{one['kind']} of round {one['round'] or '-'}"
        if (node, one["got"]) not in sent:
            yield f"the site received {what}, which the log does not hold as it received it"
        elif (node, one["sent"]) not in answered:
            yield f"the site answered {what}, which the log does not hold as it was sent"
        if one.get("head") and one["head"] not in heads:
            yield f"with {what} the site was shown a log that this one does not go on from"
    yield from _not_given(own, chain)


def _not_given(own: Sequence[Mapping[str, Any]], chain: ChainLines) -> Iterator[str]:
    """Compare the log with a site's own list: answers that it holds, and the site did not give.

    From the first message in the list on; errors may be those of the connection.
    """
    got, given = {(str(one["node"]), one["got"]) for one in own}, {one["sent"] for one in own}
    listed: set[str] = set()
    for one in chain.lines:
        if one["event"] == "sent":
            listed |= {node for node, digest in one["sites"].items() if (node, digest) in got}
        if one["event"] in ANSWERED:
            for node, digest in one["sites"].items():
                if node in listed and node not in one.get("errors", {}) and digest not in given:
                    what = f"{one['kind']} of round {one['round'] or '-'}"
                    yield f"line {one['line']} holds an answer to {what} that the site did not list"


def _passed(chain: ChainLines, events: Sequence[str]) -> set[tuple[str, str]]:
    wanted = (one for one in chain.lines if one["event"] in events)
    return {(node, digest) for one in wanted for node, digest in one["sites"].items()}


def main(words: Sequence[str]) -> int:
    """Print the finding as JSON; 2 for a user's mistake, in the last line of stderr."""
    if len(words) not in (1, 2):
        print("usage: python -m reporting.run_log RUN [SITE]", file=sys.stderr)
        return 2
    try:
        found = check_log(Path(words[0]), Path(words[1]) if words[1:] else None)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        given = f"{words[0]!r} (a line of its log lacks {error})"
        print(
            explain(given, "a log as this version writes it", "take the original"), file=sys.stderr
        )
        return 2
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
