"""A site's own list of what it received and answered, which no server can rewrite."""

from __future__ import annotations

from logging import WARNING
from pathlib import Path

from flwr.app import Context, Message
from flwr.common.logger import log

from client_app.process_cache import settings_of
from core import SettingsError, append_jsonl
from core.flower_compat import message_digest
from core.messages import CONFIG


def noted(message: Message, answer: Message, context: Context) -> Message:
    """Return an answer once it is in the site's list, where the site has one.

    A list that cannot be written is warned of in the site's log: the run goes on.
    """
    try:
        path = settings_of(context.run_config, context.node_config).privacy.site_log
    except (SettingsError, ValueError):  # the answer says so
        return answer
    if not path:
        return answer
    config = message.content.config_records.get(CONFIG)
    line = {
        "run": str(context.run_id),
        "node": context.node_id,
        "kind": message.metadata.message_type,
        "round": message.metadata.group_id,
        "got": message_digest(message),
        "sent": message_digest(answer),
        "head": str(config["log"]) if config is not None and "log" in config else "",
    }
    try:
        append_jsonl(Path(path).expanduser(), line)
    except OSError as error:
        log(WARNING, "privacy.site_log cannot be written: %s", error)
    return answer
