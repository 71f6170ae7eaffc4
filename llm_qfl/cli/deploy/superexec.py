"""The process beside a SuperLink or SuperNode that starts its apps: Flower's SuperExec.

Flower starts one by itself, hands its work to any user of the machine, and does not notice when
it dies: the server looks well and every later run hangs. As a part of its own it has a secret, is
watched, and is started again.
"""

from __future__ import annotations

import psutil

from llm_qfl.cli.deploy.parts import Part


def exec_part(server: Part, program: str) -> Part:
    """Describe the SuperExec of a server.

    Parameters
    ----------
    server : Part
        SuperLink or SuperNode; its log, environment and folder are the SuperExec's too.
    program : str
        Absolute path of ``flower-superexec``.
    """
    secret = server.command[server.command.index("--superexec-auth-secret-file") + 1]
    trust = ["--insecure"]  # a SuperNode speaks plain HTTP, on loopback
    if not server.is_node:
        trust = ["--root-certificates", str(server.folder / "ca.crt")]
    command = [program, "--runtime-api-address", f"127.0.0.1:{server.port}", *trust]
    command += ["--superexec-auth-secret-file", secret]

    def answers(port: int) -> bool:
        return part.process is not None and asks_for_work(part.process.pid, port)

    part = Part(
        f"{server.name}-exec",
        server.folder,
        command,
        server.environment,
        server.log,
        server.port,
        answers,
        follows=server,
    )
    return part


def asks_for_work(pid: int, port: int) -> bool:
    """Whether a SuperExec runs and is connected to its server, which it polls all the time."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            return False
        held = process.net_connections("tcp4")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_ESTABLISHED and c.raddr[1:] == (port,) for c in held)
