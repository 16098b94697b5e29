"""What this machine is: its processor, memory, graphics, disk, system and software.

``describe()`` looks, ``show()`` lays the result out for reading and ``to_dict()`` for a
file. ``rates`` measures. What cannot be found out is None, and shown as "unknown".
"""

from guidebook.machine import rates
from guidebook.machine.cpu import Cpu, usable_threads
from guidebook.machine.description import Machine, describe
from guidebook.machine.disk import Disk
from guidebook.machine.gpu import Gpu
from guidebook.machine.memory import Memory
from guidebook.machine.rates import Rate
from guidebook.machine.report import MachineReport, show, to_dict
from guidebook.machine.software import Software
from guidebook.machine.system import System

__all__ = [
    "Cpu",
    "Disk",
    "Gpu",
    "Machine",
    "MachineReport",
    "Memory",
    "Rate",
    "Software",
    "System",
    "describe",
    "rates",
    "show",
    "to_dict",
    "usable_threads",
]
