"""How busy the machine is while a training runs, under the names that MLflow's System metrics tab shows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

INTERVAL_SECONDS = 10.0
_MEASURED_SECONDS = 0.1  # over which the first utilization is taken; later ones are since the one before

Log = Callable[[dict[str, float], int], None]


@contextmanager
def system_metrics(log: Log, started: int, interval: float = INTERVAL_SECONDS) -> Iterator[None]:
    """Sample the machine every ``interval`` seconds, in a thread, and hand the metrics to ``log``.

    ``started`` is when the run began, milliseconds since 1970; the step of a sample is the number of
    intervals since then, so that the curves of a resumed run go on.
    """
    stop = threading.Event()

    def sample() -> None:
        machine = _Machine()
        psutil.cpu_percent(_MEASURED_SECONDS)
        while True:
            log(machine.sample(), int((time.time() - started / 1000) / interval))
            if stop.wait(interval):
                return

    thread = threading.Thread(target=sample, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _Machine:
    """Processor, memory, disk, network, and NVIDIA GPUs where there are some."""

    def __init__(self) -> None:
        self._received, self._sent = _network()
        self._nvml, self._gpus = _find_gpus()

    def sample(self) -> dict[str, float]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        received, sent = _network()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
            "network_receive_megabytes": (received - self._received) / 1e6,
            "network_transmit_megabytes": (sent - self._sent) / 1e6,
        }
        for number, gpu in enumerate(self._gpus):
            values |= {f"gpu_{number}_{name}": value for name, value in self._sample_gpu(gpu).items()}
        return {f"system/{name}": round(float(value), 1) for name, value in values.items()}

    def _sample_gpu(self, gpu: Any) -> dict[str, float]:
        """What the card tells; some keep their power, or in a share of a card their utilization, to themselves."""
        nvml, values = self._nvml, dict[str, float]()
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            values["memory_usage_percentage"] = 100 * memory.used / memory.total
            values["memory_usage_megabytes"] = memory.used / 1e6
            values["utilization_percentage"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            watts = nvml.nvmlDeviceGetPowerUsage(gpu) / 1000
            values["power_usage_watts"] = watts
            values["power_usage_percentage"] = 100_000 * watts / nvml.nvmlDeviceGetEnforcedPowerLimit(gpu)
        except nvml.NVMLError:
            pass
        return values


def _network() -> tuple[int, int]:
    """Bytes received and sent since the machine started; zeros where it has no network."""
    counters = psutil.net_io_counters()
    return (counters.bytes_recv, counters.bytes_sent) if counters else (0, 0)


def _find_gpus() -> tuple[Any, list[Any]]:
    try:
        import pynvml
    except ImportError:
        return None, []
    try:
        pynvml.nvmlInit()
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return None, []
