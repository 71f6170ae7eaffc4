"""Whether the Hugging Face hub can be reached, checked before its client retries for long."""

from __future__ import annotations

PROBE_SECONDS = 3.0


def hub_reachable() -> bool:
    """Whether the hub answers at all, within seconds.

    The hub client repeats a failed request for 23 s per file; one short question first keeps an
    offline start short.
    """
    import os
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    offline = os.environ.get("HF_DATASETS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if constants.HF_HUB_OFFLINE or offline:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
