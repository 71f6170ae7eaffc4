"""The small commands: settings, report, audit, jobs and clean.

The launcher does not import the apps: reports, replays and the job store have processes of their
own.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from core import (
    FIELDS,
    SECTIONS,
    SettingsError,
    UserError,
    accepted,
    condition_text,
    descriptions,
    real_path,
    size_on_disk,
    store_root,
    stored_items,
    traits,
)
from core.formatting import toml_value, whole
from llm_qfl.cli.children import USER_MISTAKE, LaunchError, call_module, print_json
from llm_qfl.cli.formatting import WIDTH, one_line, steps_words, who
from llm_qfl.cli.processes import alive, end_all, members


def settings(key: str, *, as_json: bool = False) -> int:
    """Explain one key, one section, or all: what it does, its default and what it takes.

    Raises
    ------
    SettingsError
        For an unknown key, with the nearest one.
    """
    chosen = [k for k in FIELDS if key in ("", k, k.partition(".")[0])]
    if not chosen:
        near = difflib.get_close_matches(key, [*FIELDS, *SECTIONS], n=1, cutoff=0.0)[0]
        takes = f"a key or a section ({', '.join(sorted(SECTIONS))})"
        raise SettingsError(f"unknown setting {key!r}", takes, f"did you mean {near!r}?")
    found = [_setting(k, text) for k, text in descriptions().items() if k in chosen]
    if as_json:
        print_json(found)
    else:
        print("\n".join(line for one in found for line in _setting_lines(one)))
    return 0


def _setting(key: str, text: str) -> dict[str, Any]:
    """Return what is known of one key."""
    return {
        "key": key,
        "default": FIELDS[key].default,
        "text": text,
        "accepted": accepted(key),
        "used_when": condition_text(key).replace("`", "") if traits(key).applies_when else "",
        "per_node": traits(key).per_node,
    }


def _setting_lines(one: Mapping[str, Any]) -> list[str]:
    lines = [f"{one['key']} = {toml_value(one['default'])}"]
    texts = [one["text"], f"Takes: {one['accepted']}."]
    texts += [f"Used when {one['used_when']}."] if one["used_when"] else []
    texts += ["A node may set its own."] if one["per_node"] else []
    for text in texts:
        lines += textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def report(run: Path) -> int:
    """Make ``report.html`` in a run's results folder again, and print where it is.

    Raises
    ------
    UserError
        If the folder holds no run.
    """
    folder = real_path(run)
    if not any(os.path.isfile(folder / name) for name in ("config.json", "metrics.jsonl")):
        raise UserError(
            f"no run in {str(run)!r}",
            "a results folder, for instance runs/latest",
            "name one that holds config.json or metrics.jsonl",
        )
    printed = call_module("reporting", [str(folder)], failed="the report was not made")
    for line in printed.splitlines()[1:]:
        print(f"llm-qfl: damaged: {one_line(line)}", file=sys.stderr)
    print(folder / "report.html")
    return 0


def audit(run: Path, *, log: bool = False, site: str = "", as_json: bool = False) -> int:
    """Replay a run's recorded decisions, and print whether they come out the same.

    Parameters
    ----------
    run : Path
        Its results folder.
    log : bool
        Check the run's log instead: its chain of digests, and what the folder holds.
    site : str
        A site's own list, to be compared with the log; empty: none.
    as_json : bool
        Print JSON.

    Returns
    -------
    int
        0 if all come out the same, 1 if any differs or the replay failed, 2 if lines are damaged.

    Raises
    ------
    UserError
        If there is no such record, or nothing of it can be read.
    """
    if log or site:
        return _audit_log(run, site, as_json)
    failed = "the decisions could not be replayed"
    printed = call_module("reporting.audit", [str(real_path(run))], failed=failed)
    found: dict[str, Any] = json.loads(printed)
    if as_json:
        print_json(found)
    else:
        print("\n".join(audit_lines(found)))
    for one in () if as_json else found["damaged"]:
        print(f"llm-qfl: {one_line(one)}", file=sys.stderr)
    if found["damaged"]:
        return USER_MISTAKE
    return 1 if any(line["differs"] for line in found["rounds"]) else 0


def _audit_log(run: Path, site: str, as_json: bool) -> int:
    words = [str(real_path(run)), *([str(real_path(site))] if site else [])]
    found = json.loads(call_module("reporting.run_log", words, failed="the log was not checked"))
    if as_json:
        print_json(found)
    else:
        print("\n".join(log_lines(found)))
    return 1 if found["broken"] or found["differs"] else 0


def log_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each line of a run's log, and below what was found."""
    who_began = one_line(found["account"]) or "not known (Flower has no account of it)"
    bundle = found["bundle"] or "none"
    code = one_line(found["code"])
    lines = [f"submitted by: {who_began}", f"bundle: {one_line(bundle)}", f"code: {code}", ""]
    lines.append("line  when (UTC)           what                        who, or digest")
    for one in found["lines"]:
        place = f", round {one['round']}" if str(one.get("round", "")) not in ("", "0") else ""
        what = f"{one.get('kind', '')} {one['event']}{place}".strip()
        cell = one_line(_log_who(one))
        lines.append(f"{one['line']:>4}  {one_line(one['at'])[:19]}  {one_line(what):<26}  {cell}")
    faults = [*([found["broken"]] if found["broken"] else []), *found["differs"]]
    lines += ["", f"head: {found['head']}", *map(one_line, (*found["notes"], *faults))]
    return [*lines, "the log does not hold" if faults else "the log holds"]


def _log_who(one: Mapping[str, Any]) -> str:
    """Return whom a line of the log is about, with the codes of errors, or its digest."""
    if "clients" not in one or one["event"] == "sites":
        return str(one.get("sha256") or one.get("config") or one.get("bundle") or "")[:16]
    errors = one.get("errors", {})
    codes = f"; {len(errors)} with an error" if errors else ""
    clients = one["clients"]
    shown = ", ".join(clients[:8]) + (f" and {len(clients) - 8} more" if clients[8:] else "")
    return f"{shown}{codes}"


def audit_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each replayed round, and below it what differs."""
    rounds = found["rounds"]
    lines = [f"agent: {one_line(found['agent'])}", "", "round  clients  steps         replayed"]
    for one in rounds:
        named = "stop" if one["stop"] else who(one["participants"], one["clients"])
        steps = "" if one["stop"] else steps_words(one["steps"], one["participants"])
        outcome = "differs" if one["differs"] else "same"
        lines.append(f"{one['round']:>5}  {named:<8} {steps:<13} {outcome}")
        lines += [f"       - {one_line(difference)}" for difference in one["differs"]]
    same = sum(not one["differs"] for one in rounds)
    return [*lines, "", f"{same} of {len(rounds)} decisions come out the same"]


def jobs(*, cancel: bool, run: str, account: str, store: str, as_json: bool = False) -> int:
    """List, or cancel, the jobs that were submitted to a device and not collected.

    Parameters
    ----------
    cancel : bool
        Whether to cancel, not only list.
    run, account, store : str
        Flower's id of a run, a saved IBM account, and the site's store; empty: all runs, the
        default account and the usual store.

    Raises
    ------
    UserError
        If the job store or the service cannot be used.
    """
    place = store_root(store)
    found = [json.loads(line) for line in _pending(place, run)]
    cancelled = int(_pending(place, run, account, "--cancel")[0]) if cancel and found else 0
    if as_json:
        print_json({"store": str(place), "jobs": found, "cancelled": cancelled})
        return 0
    for job in found:
        print(
            f"{job['backend']}  {job['job_id'] or 'id unknown'}  {job['status']}  "
            f"{whole(job['circuits'])} circuits  {job['created']}  run {job['run']}: {job['label']}"
        )
    if not found:
        print(f"no open jobs in {place}")
    elif cancel:
        print(
            f"{cancelled} of {len(found)} cancelled; what was done already is kept to be collected"
        )
    return 0


def cancel_run(store: str, run: str, account: str) -> str:
    """Cancel what a stopped run left open; return a line on it, empty if there was nothing."""
    place = store_root(store)
    if not run or not (place / "jobs.sqlite").is_file() or not _pending(place, run):
        return ""
    (count,) = _pending(place, run, account, "--cancel")
    return f"{count} open jobs cancelled" if count != "0" else ""


def _pending(store: Path, run: str = "", account: str = "", *more: str) -> list[str]:
    """Let the job store's own process list or cancel open jobs; return its lines."""
    words = ["--store", str(store), "--run", run, "--account", account, *more]
    module, failed = "quantum.engines.devices.pending", "the job store could not be used"
    return call_module(module, words, failed=failed, seconds=120.0).splitlines()


def completion(shell: str) -> int:
    """Print a shell's completion of the command.

    Raises
    ------
    UserError
        If shtab, which writes it, is not installed.
    """
    from llm_qfl.cli.app import make_parser

    try:
        import shtab
    except ModuleNotFoundError:
        given = "llm-qfl completion needs the package shtab, which is not installed"
        fix = "install with `pip install 'llm-qfl[completion]'`"
        raise UserError(given, "an installation with the extra 'completion'", fix) from None
    print(shtab.complete(make_parser(), shell))
    return 0


def clean(*, remove: bool, as_json: bool = False) -> int:
    """List, or remove, what the project keeps outside the results folders.

    Raises
    ------
    UserError
        If jobs in the store wait to be collected.
    """
    place = store_root()
    stored = stored_items(place)
    if remove:
        _refuse_open_jobs(place)
    dead = dict(leftovers())
    found = {path: size_on_disk(path) for path in (*stored, *dead)}
    if as_json:
        items = [{"path": str(path), "bytes": size} for path, size in found.items()]
        print_json({"store": str(place), "items": items, "removed": remove})
    elif not found:
        print(f"nothing of ours is kept in {place}")
    for path, size in found.items():
        if not as_json:
            print(f"{size / 1e6:9.1f} MB  {path}")
        if remove:
            if path in dead:
                end_all(members(dead[path]), grace=3.0)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    total = "removed" if remove else "remove it with: llm-qfl clean --yes"
    if found and not as_json:
        print(f"{len(found)} item{'s' * (len(found) != 1)}; {total}")
    return 0


def leftovers(base: Path = Path("/tmp")) -> Iterator[tuple[Path, str]]:
    """Yield private folders of launches that were killed outright, with their tags."""
    living = {process.pid for process in psutil.process_iter() if alive(process)}
    for folder in sorted(base.glob("llm-qfl-*")):
        try:
            number, tag = (folder / "launch").read_text(encoding="utf-8").split()
            dead = int(number) not in living
        except (OSError, ValueError):
            continue  # not made by us
        if dead and folder.stat().st_uid == os.getuid():
            yield folder, tag


def _refuse_open_jobs(place: Path) -> None:
    """Refuse to forget jobs that are paid for and wait at a device."""
    if not (place / "jobs.sqlite").is_file():
        return
    try:
        waiting = len(_pending(place))
    except LaunchError as error:
        raise UserError(f"{str(place)!r}: {error}") from None
    if waiting:
        raise UserError(
            f"{waiting} jobs of {str(place)!r} were submitted to a device and not collected",
            "a store without open jobs",
            "let their run collect them, or end them with: llm-qfl jobs --cancel",
        )
