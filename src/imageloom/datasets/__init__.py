"""Data sets of trainings: a zip of pictures with captions, judged before anything is done with it.

An archive is read, never extracted: what is written has names that we make. Pillow only. All of
it blocks: call it in a thread. A megapixel of JPEG takes 13 ms of one core to inspect and 29 to
unpack, of PNG 36 and 52.
"""

from imageloom.datasets.buckets import LONGEST_SHAPE, trained_size
from imageloom.datasets.inspecting import inspect, unpack
from imageloom.datasets.report import Item, Problem, ProblemKind, Report
from imageloom.datasets.rules import DEFAULT_LIMITS, DatasetLimits

__all__ = [
    "DEFAULT_LIMITS",
    "LONGEST_SHAPE",
    "DatasetLimits",
    "Item",
    "Problem",
    "ProblemKind",
    "Report",
    "inspect",
    "trained_size",
    "unpack",
]
