"""What a command costs: CPU and wall time, and the memory of all its processes."""

import json
import os
import resource
import subprocess
import sys
import threading
import time

import psutil


def measured(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; CPU and wall seconds and the peak memory of its process tree in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            try:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak[0] = max(peak[0], sum(p.memory_full_info().uss for p in tree))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{command}: exit code {process.returncode}\n{output}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {"cpu_s": cpu, "wall_s": time.monotonic() - started, "peak_bytes": float(peak[0])}
    last = output.strip().splitlines()[-1] if output.strip() else ""
    return {**result, **json.loads(last)} if last.startswith("{") else result
