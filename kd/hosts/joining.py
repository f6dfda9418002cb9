"""How the processes of a run find each other, and how they end together.

All of it is `jax.distributed`: its coordinator in the first process, its heartbeats,
its store of keys. What is added here is words. JAX ends a process whose partners are
gone by aborting it, with a page of stack frames; the page goes to the process's log,
and one line says which process on which host was the cause.
"""

import contextlib
import ctypes
import json
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
import traceback
from typing import IO, Any, NamedTuple, NoReturn

from kd.errors import UserError, is_out_of_memory

PATIENCE = 120
"""Seconds that processes wait for each other at the start, unless told otherwise."""
_HEARTBEAT: int = 20
"""Seconds after which a process that is silent counts as dead."""
_END = 60
"""Seconds that processes wait for each other at the end."""
_FAILED = "kd/failed"
_LOOKS = 0.5
"""Seconds between looks at whether another process failed."""


class Group(NamedTuple):
    """This process among those of a run."""

    coordinator: str
    """Address and port of the first process."""
    processes: int
    process: int
    """This one, counted from 0."""
    local_devices: tuple[int, ...] | None = None
    """Of this process, where the cluster says so; None for all of the machine."""


class _State:
    group: Group | None = None
    names: tuple[str, ...] = ()
    """What each process is called, once all have told."""
    log: pathlib.Path | None = None
    log_file: IO[str] | None = None
    log_begins = 0
    stderr: IO[str] | None = None
    """The terminal's, where others than the first have the log as theirs."""
    joined = False
    when_aborted: Any = None
    """Kept, or it would be collected."""
    ending = threading.Event()


def several() -> bool:
    """Whether this process has joined others."""
    return _State.group is not None


def group() -> Group:
    """This process among those of the run; alone, the only one."""
    return _State.group or Group("", 1, 0)


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return group().process == 0


def name_of(process: int) -> str:
    """A process in words, with its host where that is known."""
    host = _State.names[process] if process < len(_State.names) else ""
    return f"process {process}" + (f" ({host})" if host else "")


def client() -> Any:
    """JAX's client of the store that all processes share.

    There is no public way to it; Orbax goes this one too.
    """
    from jax._src import distributed

    return distributed.global_state.client


def find(
    coordinator: str | None, processes: int | None, process: int | None, patience: int
) -> Group | None:
    """The group that options or the cluster say this process is of; None for none.

    TPU pods, SLURM, Open MPI and Kubernetes are told by `jax.distributed`.

    Args:
        coordinator: address and port of the first process.
        processes: how many there are.
        process: which one this is.
        patience: seconds.

    Raises:
        UserError: some of the three are missing, or they are no such thing; the cluster
            fails to say.
    """
    given = {"COORDINATOR": coordinator, "PROCESSES": processes, "PROCESS": process}
    if processes == 1:
        return None
    if any(value is not None for value in given.values()):
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise UserError(
                f"{' and '.join(missing)} missing: several hosts need COORDINATOR="
                "host:port of the first, PROCESSES= of all and PROCESS= from 0 on"
            )
        assert coordinator is not None and processes is not None and process is not None
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"COORDINATOR={coordinator}: expected host:port")
        if not 0 <= process < processes:
            raise UserError(
                f"PROCESS={process} of PROCESSES={processes}: expected 0 to "
                f"{max(processes, 1) - 1}"
            )
        return Group(coordinator, processes, process)
    try:
        return _of_cluster(patience)
    except (OSError, RuntimeError, LookupError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"this is one of several hosts, but the cluster does not say which: "
            f"{reason:.200}; say so by COORDINATOR=, PROCESSES= and PROCESS=, or "
            "PROCESSES=1 for this one alone"
        ) from error


def _of_cluster(patience: int) -> Group | None:
    # What `jax.distributed.initialize()` does first; asked alone, because that fails
    # where there is no cluster and one process is not to wait for it.
    from jax._src.clusters import ClusterEnv

    for cluster in ClusterEnv._cluster_types:
        if cluster.opt_in_only_method or not cluster.is_env_present():
            continue
        if cluster.get_process_count() == 1:
            return None
        found = cluster.auto_detect_unset_distributed_params(
            None, None, None, None, None, patience
        )
        address, processes, process, devices = found
        assert address is not None and processes is not None and process is not None
        return Group(address, processes, process, tuple(devices) if devices else None)
    return None


def join(ours: Group | None, log: pathlib.Path, *, patience: int = PATIENCE) -> None:
    """Joins the other processes; to be called before JAX looks for devices.

    What XLA has to say goes to the log from here on, and in all processes but the
    first everything that is printed.

    Args:
        ours: this process and the others; None alone.
        log: of this process.
        patience: seconds to wait for the others.

    Raises:
        UserError: the coordinator does not answer, or its port is taken.
    """
    if ours is None:
        return
    _State.group = ours
    _open_log(log)
    _speak_when_aborted(patience)
    _reach(ours, patience)
    import jax

    try:
        jax.distributed.initialize(
            ours.coordinator,
            ours.processes,
            ours.process,
            local_device_ids=ours.local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=patience,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_END,
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{ours.coordinator}: {first:.200}") from error
    _State.joined = True
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        # JAX has the first process alone write it: some would then compile and others
        # not, and compilers that tune together wait for all.
        jax.config.update("jax_enable_compilation_cache", False)
    from kd.hosts import exchange

    _State.names = tuple(exchange.of_all(socket.gethostname()))
    threading.Thread(target=_watch, name="watch", daemon=True).start()


def described() -> str:
    """The processes in a line."""
    import jax

    where = sorted({*_State.names})
    shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if where[3:] else "")
    return (
        f"{group().processes} processes on {shown}, {jax.device_count()} devices; what "
        f"the others say is in {_State.log and _State.log.parent}"
    )


def leave() -> None:
    """Waits for the others to end as well; then no process may fail any more."""
    if _State.joined:
        import jax

        _State.ending.set()
        jax.distributed.shutdown()
        _State.joined = False


def fail(line: str, status: int) -> int:
    """Ends all processes; alone, returns the exit status.

    Args:
        line: what happened here, shown by the others.
        status: of the exit.
    """
    if not several():
        return status
    _State.ending.set()
    if _State.joined:
        told = {"process": group().process, "line": line, "status": status}
        with contextlib.suppress(Exception):  # another one failed first
            client().key_value_set(_FAILED, json.dumps(told))
        # The store is in the first process.
        time.sleep(6 * _LOOKS if is_first() else 2 * _LOOKS)
    _exit(status)


def fail_of(error: Exception) -> int:
    """Ends all processes because of an error that nobody expected.

    Where it is only that another process is gone, that one's own word is waited for.
    """
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.300}"
    if several():
        torn = _is_torn(error)
        for stream in {_State.log_file, None if torn else sys.stderr} - {None}:
            traceback.print_exception(error, file=stream)
        # A process whose partner dies notices by a torn connection at first. Who it
        # was is known when heartbeats are missed, or is told by that process.
        time.sleep(2 * _HEARTBEAT if torn else 2 * _LOOKS)
        tell(f"error: {line}")
    return fail(line, 1)


def _is_torn(error: Exception) -> bool:
    words = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "NCCL", "barrier")
    return not is_out_of_memory(error) and any(word in str(error) for word in words)


def tell(line: str) -> None:
    """Shows a line on the terminal, whichever process this is, and in its log."""
    if several() and not is_first():
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
        line = f"{name_of(group().process)}: {line}"
    print(line, file=_State.stderr or sys.stderr, flush=True)


def _open_log(path: pathlib.Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "a", buffering=1, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from error
    _State.log, _State.log_file, _State.log_begins = path, log, log.tell()
    # It warns of proxies.
    logger = logging.getLogger("jax._src.distributed")
    logger.addHandler(logging.StreamHandler(log))
    logger.propagate = False
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    out, err = (os.fdopen(os.dup(i), "w", buffering=1) for i in (1, 2))
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    _State.stderr = err
    sys.stdout, sys.stderr = (out, err) if is_first() else (log, log)


def _reach(ours: Group, patience: int) -> None:
    """Waits until the coordinator can be spoken to."""
    if ours.process == 0:
        return
    host, _, port = ours.coordinator.rpartition(":")
    ends = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > ends:
                raise UserError(
                    f"the coordinator {ours.coordinator} does not answer within "
                    f"{patience} s ({error.strerror or error}); it is the process with "
                    "PROCESS=0, and its port must be open to all others"
                ) from error
        time.sleep(_LOOKS)


def _watch() -> None:
    """Ends this process when another one has said why it failed."""
    store = client()
    while not _State.ending.wait(_LOOKS):
        try:
            told = json.loads(store.key_value_try_get(_FAILED))
        except Exception:  # there is no such key, as it should be
            continue
        if told["process"] != group().process and not _State.ending.is_set():
            tell(f"error: {name_of(told['process'])}: {told['line']}")
            if is_first():
                time.sleep(
                    6 * _LOOKS
                )  # The store is here, and the others look as well.
            _exit(told["status"])


def _speak_when_aborted(patience: int) -> None:
    # JAX's callback for this case cannot be written in Python: its argument has no
    # Python type. XLA ends the process by `abort` then, from a thread of its own.
    def aborted(_: int) -> None:
        try:
            tell(f"error: {_cause(patience)}")
        finally:
            _exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype = ctypes.c_void_p
    set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
    set_handler(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    _State.when_aborted = handler


def _cause(patience: int) -> str:
    """Why XLA ends this process, by what it wrote to the log."""
    said, ours = "", group()
    if _State.log is not None:
        with contextlib.suppress(OSError), open(_State.log, errors="replace") as file:
            file.seek(_State.log_begins)
            said = file.read()
    twice = re.findall(r"(?:\] |ABORTED: )(\d+) unexpectedly tried to connect", said)
    if twice:
        return f"two processes have PROCESS={twice[-1]}; each must have its own"
    if "newer incarnation" in said:
        return f"another process has PROCESS={ours.process} too; each must have its own"
    if not _State.joined:
        return (
            f"not all of {ours.processes} processes came to {ours.coordinator} within "
            f"{patience} s; PROCESSES= must be how many are started, each with its own "
            "PROCESS="
        )
    dead = re.findall(r"stopped sending heartbeats\):\n((?:\d+\n)+)", said)
    if dead:
        who = " and ".join(name_of(int(i)) for i in dead[-1].split())
        return f"{who} died or is cut off: no heartbeat for {_HEARTBEAT} s"
    if "Failed to send RPC to coordination service" in said and not is_first():
        return f"{name_of(0)}, the coordinator {ours.coordinator}, died or is cut off"
    return f"JAX's runtime ended this process; {_State.log} says why"


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
