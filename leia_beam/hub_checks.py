"""From a name on the hub to whether its files are here; nothing is asked of the network."""

from __future__ import annotations

import importlib.util

from leia_beam.findings import NOTE, OK, PROBLEM, Finding


def hub_finding(name: str, file: str, subject: str) -> Finding:
    """Whether a file of a repository of the hub is here already, or could be asked for."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return Finding(
            state=PROBLEM,
            subject=subject,
            text=f"{name}: no such folder, and huggingface_hub is not installed to look for it on the hub",
            advice="pip install huggingface_hub, or give a folder",
        )
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, file)
    except ValueError:  # which is how it refuses what is no name
        return Finding(
            state=PROBLEM,
            subject=subject,
            text=f"{name}: neither a folder nor a name on the hub",
            advice="look at its spelling",
        )
    if isinstance(cached, str):
        return Finding(state=OK, subject=subject, text=f"{name}: {file} was downloaded before")
    if constants.HF_HUB_OFFLINE:
        return Finding(
            state=PROBLEM,
            subject=subject,
            text=f"{name}: not here, and the hub is off (HF_HUB_OFFLINE)",
            advice="download it where the hub can be reached, or give a folder",
        )
    return Finding(state=NOTE, subject=subject, text=f"{name}: a name on the hub, to be downloaded when it is needed")
