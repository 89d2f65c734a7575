"""`leia-train study`: from a recipe to trained, scored and compared arms, doing only what is missing."""

from __future__ import annotations

import importlib.util
import os

from leia_beam.configuration import Options
from leia_beam.errors import MissingResource, UsageError
from leia_train.command_configs import StudyConfig
from leia_train.launcher import is_launched
from leia_train.study_lines import place_lines, state_lines
from leia_train.study_state import Study
from leia_train.study_work import Report, do_missing


def run_study(options: Options, chosen: StudyConfig, *, report: Report) -> int:
    """Do what is missing of a recipe's study, and say at the end where everything is.

    Raises: UsageError without a recipe or under a launcher; MissingResource without lm_eval; OtherBuild where a folder holds
    what another recipe made; Interrupted, with what is kept; the error of a step.
    """
    if options.recipe is None:
        raise UsageError("give the study's recipe with -c FILE")
    if is_launched(os.environ):
        raise UsageError("a study starts its processes itself; give `nproc` in the recipe in place of a launcher")
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingResource("a study needs lm_eval, which is not installed: pip install 'leia-lm[eval]'")
    study = Study.of(options, chosen)
    if chosen.dry_run:
        print("\n".join(state_lines(study)))
        return 0
    for line in state_lines(study):
        report(line)
    do_missing(study, report)
    print("\n".join(place_lines(study)))
    return 0
