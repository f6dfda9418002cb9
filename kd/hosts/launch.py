"""`make hosts N=2 NAME=...`: the processes of a run on this machine, to try it.

    python -m kd hosts N NAME [what `python -m kd` takes]

Every line is shown behind the number of the process that wrote it. Signals are passed
on to all. When one process fails, the others end by themselves; one that does not is
killed.
"""

import signal
import socket
import subprocess
import sys
import threading
import time

from kd.errors import UserError

_GRACE = 60.0
"""Seconds that processes have to end after one has failed."""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    if not arguments or not arguments[0].isdecimal() or int(arguments[0]) < 2:
        raise UserError("how many processes? make hosts N=2 NAME=...")
    processes, rest = int(arguments[0]), arguments[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "kd", *rest, "--coordinator", address]
    return run(
        [
            [*command, "--processes", str(processes), "--process", str(i)]
            for i in range(processes)
        ]
    )


def run(commands: list[list[str]]) -> int:
    """Runs commands side by side; returns the exit status of the first that failed."""
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )
        for command in commands
    ]  # fmt: skip
    shown = [
        threading.Thread(target=_show, args=(i, process))
        for i, process in enumerate(started)
    ]
    for thread in shown:
        thread.start()

    def pass_on(number: int, frame: object) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    status, ends = 0, float("inf")
    try:
        while None in (statuses := [process.poll() for process in started]):
            time.sleep(0.1)
            failed = [status for status in statuses if status]
            if failed and not status:
                status, ends = failed[0], time.monotonic() + _GRACE
            if time.monotonic() > ends:
                break
    finally:
        for process in started:
            process.kill()
        for process, thread in zip(started, shown, strict=True):
            process.wait()
            thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    status = status or next((p.returncode for p in started if p.returncode), 0)
    return 128 - status if status < 0 else status


def _show(i: int, process: subprocess.Popen) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            sys.stdout.write(f"{i}| {line.decode(errors='replace')}")
            sys.stdout.flush()
