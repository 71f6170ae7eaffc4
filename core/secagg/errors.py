"""The one error of the protocol: a reason in one line, and who is to blame where that is known."""

from __future__ import annotations


class SecAggError(ValueError):
    """A message or a request of the protocol is refused.

    Parameters
    ----------
    reason : str
        One line.
    clients : sequence of int
        Clients that broke the protocol, as far as that can be said.

    Attributes
    ----------
    reason : str
    clients : tuple of int
    """

    def __init__(self, reason: str, clients: tuple[int, ...] | list[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.clients = tuple(clients)
