"""Memory that is used again: on a processor, touching a fresh page costs as much as computing.

All programs of a process share one pool for each type and device, so it holds no more than the
largest step needs, once for each step at work at the same time, whatever the number of clients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantum.engines.exact.schedule import CHUNK

CUDA_CHUNK = 2**26  # most amplitudes of a chunk on a GPU, whose work hides the launches by far
STATES = 16  # buffers of a step as large as a chunk's states, counted in `execution_plan`
READOUT_STATES = 2  # and at most for each read-out: what its observable makes of them, and terms


class Workspace:
    """Named buffers, each as large as the largest tensor requested so far.

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
        self._buffers: dict[str, Tensor] = {}

    def empty(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of that shape, its content undefined."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=self._dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)

    @property
    def nbytes(self) -> int:
        """Memory of all buffers."""
        return sum(buffer.nbytes for buffer in list(self._buffers.values()))


class WorkspacePool:
    """Workspaces that no step holds at the moment; a step takes one and gives it back.

    A step that never comes back (its gradient is never requested) just drops its workspace.
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

    @property
    def nbytes(self) -> int:
        """Memory of the idle workspaces."""
        return sum(workspace.nbytes for workspace in list(self._idle))


_POOLS: dict[tuple[torch.dtype, torch.device], WorkspacePool] = {}


def shared_pool(dtype: torch.dtype, device: torch.device) -> WorkspacePool:
    """Return the process's pool of that type and device."""
    return _POOLS.setdefault((dtype, device), WorkspacePool(dtype, device))


def amplitudes_at_once(dtype: torch.dtype, device: torch.device, readouts: int) -> int:
    """Amplitudes of one chunk of rows: what suits a cache, or what fits a GPU at the moment."""
    if device.type != "cuda":
        return CHUNK
    free, _ = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    held = shared_pool(dtype, device).nbytes
    return chunk_amplitudes(free + idle + held, dtype.itemsize, readouts)


def chunk_amplitudes(free_bytes: int, itemsize: int, readouts: int) -> int:
    """Amplitudes of a chunk whose step takes at most half of a GPU's free memory.

    A step holds `STATES` buffers of the chunk's states and `READOUT_STATES` more a read-out,
    9.7 GB for `CUDA_CHUNK` amplitudes in float32 with one read-out.

    Parameters
    ----------
    free_bytes : int
        Free memory.
    itemsize : int
        Bytes of a real number; an amplitude is two.
    readouts : int
        Number of read-outs R.

    Returns
    -------
    int
        A power of two, so that a little more or less memory does not change the order of sums;
        at least `CHUNK`, at most `CUDA_CHUNK`.
    """
    each = 2 * itemsize * (STATES + READOUT_STATES * readouts)
    fitting = 1 << max(1, free_bytes // 2 // each).bit_length() - 1
    return max(CHUNK, min(CUDA_CHUNK, fitting))
