"""Memory that is used again: on a processor, touching a fresh page costs as much as computing."""

from __future__ import annotations

import math

import torch


class Workspace:
    """Named buffers, each as large as the largest tensor ever asked of it.

    Two tensors of one name share their memory: the later one overwrites the earlier.

    Parameters
    ----------
    dtype : torch.dtype
        Type of all tensors.
    device : torch.device
        Where they live.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._buffers: dict[str, torch.Tensor] = {}

    def empty(self, name: str, *shape: int) -> torch.Tensor:
        """Return a tensor of that shape, its content undefined."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)


class WorkspacePool:
    """Workspaces that no step holds at the moment; a step takes one and gives it back.

    A step that never comes back (its gradient is never asked for) just drops its workspace.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._idle: list[Workspace] = []

    def take(self) -> Workspace:
        """Return an idle workspace, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:  # asking first would be a race between threads
            return Workspace(self._dtype, self._device)

    def give(self, workspace: Workspace) -> None:
        """Make a workspace available to the next step."""
        self._idle.append(workspace)
