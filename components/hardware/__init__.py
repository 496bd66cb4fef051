"""Which device, precision and compile mode a step computes with, and whether this installation can.

``choose_device`` finds the device, ``preflight`` tries it, ``choose_compute`` decides how to train on it.
The decisions themselves are in ``rules``, on plain values.
"""

from components.hardware.compute import Compute, choose_compute, restore_compute
from components.hardware.device import Device, choose_device
from components.hardware.rules import CompileMode, HardwareError, Precision, check_driver, check_kernels
from components.hardware.toolchain import cpp_compiler, cpp_problem
from components.hardware.trial import preflight

__all__ = [
    "CompileMode",
    "Compute",
    "Device",
    "HardwareError",
    "Precision",
    "check_driver",
    "check_kernels",
    "choose_compute",
    "choose_device",
    "cpp_compiler",
    "cpp_problem",
    "preflight",
    "restore_compute",
]
