"""A process of a training run that counts its own tensors: `python counted_run.py OUT.json train …`, with a launcher's environment.

OUT.json gets the bytes of all tensors that the process holds when training begins and after the first step, and the smallest of
the peaks within the later steps: what is held then, and what torch's allocator for CPUs gave and took during the step. The
smallest, since an exchange that ends late holds its memory longer, and what the code itself keeps is in each of them.
"""

import gc
import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from leia_train import train as loop
from leia_train.cli import main


def held_bytes():
    """Of the memory behind all tensors that Python knows of, each once."""
    gc.collect()
    sizes = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
        elif hasattr(type(thing), "_local_tensor"):
            storage = thing._local_tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def taken_at_most(profile):
    """The most that was given and not yet taken back, of what was given while the profile ran."""
    found = []

    def walk(nodes):
        for node in nodes:
            if node.tag.name == "Allocation":
                found.append(node.extra_fields.total_allocated)
            walk(node.children)

    walk(profile.profiler.kineto_results.experimental_event_tree())
    return max(found)


def counting(do_step, counted):
    """A step that counts beside what it does."""

    def step(run, rows):
        if run.step == 0:
            counted["begin"] = held_bytes()
        if run.step < 2:
            done = do_step(run, rows)
            counted.setdefault("after", held_bytes())
            return done
        before = held_bytes()
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            done = do_step(run, rows)
        counted["peak"] = min(before + taken_at_most(profile), counted.get("peak", 1 << 60))
        return done

    return step


if __name__ == "__main__":
    found = {}
    with patch.object(loop, "do_step", counting(loop.do_step, found)):
        code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(found))
    os._exit(code)  # as a process of several ends (leia_train/__main__.py)
