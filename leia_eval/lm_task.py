"""From a task's YAML to an lm-eval task whose shots may come from a set of their own, and still know the document.

lm-eval tells its sampler which document is evaluated only where shots come from the evaluated split, and shots that
are fixed per document need to know. So the split of the shots is named as the evaluated one, and the documents that
the sampler gets are those of the separate set where there is one.
"""

from typing import Any

from lm_eval.api.task import ConfigurableTask

from leia_eval.documents import SHOT_SPLIT


class LeiaTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A YAML task with its own set of shots, named by the YAML's ``class``."""

    def __init__(self, config: dict[str, Any]):
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def fewshot_docs(self) -> Any:
        """The documents that shots are drawn from."""
        return self.dataset[SHOT_SPLIT] if SHOT_SPLIT in self.dataset else super().fewshot_docs()
