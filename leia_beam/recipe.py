"""From one YAML file to what all commands take from it: texts as they are written, each with the place where it stands.

    name: Swahili on one GPU
    variables: {language: sw}
    folder: work/${language}                    # everything is written below it
    corpus: {wiki: "${language}", tokenizer: my-model}
    training: {model: my-model, steps: 50}
    evaluation: {tasks: "leia_xcsqa_${language}"}
    arms: {plain: {training: {strategy: none}}, leia: {}}
    seeds: [1, 2, 3]
    primary: {arm: leia, against: plain, metric: acc}

Values are texts (recipe_tree.py): what a name means, and which type its value has, is decided by the command that has an
option of that name (configuration.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leia_beam.errors import UsageError
from leia_beam.recipe_tree import Entry, Tree, read_tree, read_word
from leia_beam.suggestions import nearest

CORPUS, TRAINING, EVALUATION = "corpus", "training", "evaluation"
SECTIONS = (CORPUS, TRAINING, EVALUATION)
DEFAULT_ARM = "leia"
DEFAULT_SEED = 42
_PARTS = ("name", "description", "variables", "folder", *SECTIONS, "arms", "seeds", "primary")
_MOVED = {
    **dict.fromkeys(("data", "model", "optimization", "run"), TRAINING),
    **dict.fromkeys(("build", "fetch"), CORPUS),
    "eval": EVALUATION,
}
"""Sections of recipes of version 0.1, and where their values stand now."""
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_ARM = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?<!\.)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A value as it is written (a text or a list of texts; None: null), and where: 'recipe.yaml:7' or '--set a.b=c'."""

    value: str | tuple[str, ...] | None
    place: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The value as a list."""
        if self.value is None:
            return ()
        return (self.value,) if isinstance(self.value, str) else self.value


Settings = Mapping[str, Setting]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What an arm has otherwise than the sections, by section. One with a model of its own to score is not trained."""

    sections: Mapping[str, Settings] = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        """Whether there is a run of training for each seed."""
        return "model" not in self.sections.get(EVALUATION, {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe with the settings of `--set` in it and without variables."""

    path: str | None = None
    name: str = ""
    description: str = ""
    folder: Setting | None = None
    sections: Mapping[str, Settings] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    arms: Mapping[str, Arm] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    seeds_place: str = ""
    primary: Settings = field(default_factory=dict)

    def section(self, name: str, arm: str | None = None) -> dict[str, Setting]:
        """The values of a section, those of an arm before the others; none that is null or a list of nothing."""
        values = dict(self.sections[name])
        if arm is not None and arm in self.arms:
            values |= self.arms[arm].sections.get(name, {})
        return {key: setting for key, setting in values.items() if setting.texts}

    def arm(self, given: str | None = None) -> str:
        """The arm that is given, else that of the primary endpoint, else the only one.

        Raises: UsageError where the recipe has no such arm, or several and none is named.
        """
        if given is not None:
            if given not in (self.arms or (DEFAULT_ARM,)):
                known = ", ".join(self.arms) or f"no arms but {DEFAULT_ARM}"
                raise UsageError(f"--arm {given}: the recipe has {known}{nearest(given, self.arms)}")
            return given
        wanted = self.primary.get("arm")
        name = str(wanted.value) if wanted is not None and wanted.value else DEFAULT_ARM
        if not self.arms or name in self.arms:
            return name
        if len(self.arms) == 1:
            return next(iter(self.arms))
        raise UsageError(f"{self.path}: has the arms {', '.join(self.arms)}; say with --arm which one is meant")

    def is_trained(self, arm: str) -> bool:
        """Whether an arm has a run of training for each seed, and no model of its own."""
        return arm not in self.arms or self.arms[arm].is_trained

    def seed(self) -> int:
        """The seed of the training where none is given: the first of the recipe's, else the training's own."""
        own = self.sections[TRAINING].get("seed")
        if self.seeds or own is None or not isinstance(own.value, str) or not own.value.isdecimal():
            return self.seeds[0] if self.seeds else DEFAULT_SEED
        return int(own.value)

    def below_folder(self, path: str) -> Setting | None:
        """A path below the recipe's folder, where it has one."""
        if self.folder is None or not self.folder.texts:
            return None
        root = self.folder.texts[0].rstrip("/") or "/"
        return Setting(value=f"{root}/{path}", place=f"derived from folder, {self.folder.place}")

    def corpus_folder(self) -> Setting | None:
        """Where the corpus is built: `corpus.output`, else FOLDER/corpus."""
        return self.section(CORPUS).get("output") or self.below_folder("corpus")

    def dumps_folder(self) -> Setting | None:
        """Where the dumps lie: `corpus.dumps`, else FOLDER/dumps."""
        return self.section(CORPUS).get("dumps") or self.below_folder("dumps")

    def run_folder(self, arm: str, seed: int | str) -> Setting | None:
        """Where an arm is trained with a seed: `training.output`, else FOLDER/training/ARM-SEED."""
        return self.section(TRAINING, arm).get("output") or self.below_folder(f"training/{arm}-{seed}")

    def scores_folder(self, arm: str, seed: int | str) -> Setting | None:
        """Where it is scored: `evaluation.output`, else FOLDER/evaluation/ARM-SEED, or …/ARM for one that is not trained."""
        name = f"{arm}-{seed}" if self.is_trained(arm) else arm
        return self.section(EVALUATION, arm).get("output") or self.below_folder(f"evaluation/{name}")

    def report_folder(self) -> Setting | None:
        """Where the arms are compared: `evaluation.report`, else FOLDER/report."""
        return self.section(EVALUATION).get("report") or self.below_folder("report")


def read_recipe(path: str | None, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with `NAME=VALUE` settings put into it, or of these alone.

    Raises: UsageError with file and line, or with the setting, for what is no recipe.
    """
    tree = {} if path is None else _read_file(path)
    for setting in settings:
        _put(tree, setting)
    return _recipe(path, tree)


def _read_file(path: str) -> Tree:
    value = read_tree(path)
    if value is None:
        raise UsageError(f"-c {path}: is empty; a recipe has the parts {', '.join(_PARTS)}")
    if not isinstance(value, dict):
        raise UsageError(f"{path}:1: a recipe is a mapping with the parts {', '.join(_PARTS)}")
    return value


def _put(tree: Tree, setting: str) -> None:
    """Put a setting where its name says: `language` is a variable, `training.steps` a value."""
    name, sign, text = setting.partition("=")
    place = f"--set {setting}"
    keys = name.split(".")
    if not sign or not all(keys):
        raise UsageError(f"{place}: must be of the form NAME=VALUE, such as training.steps=50")
    variables = tree.get("variables")
    known = variables.value if variables is not None and isinstance(variables.value, dict) else {}
    if len(keys) == 1 and name not in _PARTS:
        if name not in known and name not in _MOVED:
            raise UsageError(f"{place}: the recipe has no variable {name!r}{nearest(name, [*known, *_PARTS])}")
        keys = ["variables", name] if name in known else keys
    value = read_word(text, place)
    if isinstance(value, dict):
        raise UsageError(f"{place}: gives a mapping; set its values one by one")
    entry = Entry(value, place)
    at = tree
    for depth, key in enumerate(keys[:-1]):
        found = at.get(key)
        inner = found.value if found is not None else None
        if inner is not None and not isinstance(inner, dict):
            raise UsageError(f"{place}: {'.'.join(keys[: depth + 1])!r} is a value, not a section")
        if inner is None or found is None:
            inner = {}
            at[key] = Entry(inner, place)
        at = inner
    last = keys[-1]
    if keys[0] in (*SECTIONS, "arms") and len(keys) > 1:
        last = next((key for key in at if _option(key) == _option(last)), last)
    at[last] = entry


def _recipe(path: str | None, tree: Tree) -> Recipe:
    for name, entry in tree.items():
        if name in _MOVED:
            raise UsageError(
                f"{entry.place}: {name!r} is no part of a recipe any more; its values stand straight in {_MOVED[name]!r}"
            )
        if name not in _PARTS:
            hint = nearest(name, _PARTS) or f" (there are {', '.join(_PARTS)})"
            raise UsageError(f"{entry.place}: unknown part {name!r}{hint}")
    variables = _variables(tree)
    texts = {name: _setting(tree[name], name, variables) for name in ("name", "description", "folder") if name in tree}
    for name, setting in texts.items():
        if isinstance(setting.value, tuple):
            raise UsageError(f"{setting.place}: {name!r} is one text, not a list")
    folder = texts.get("folder")
    if folder is not None and folder.value == "":
        raise UsageError(f"{folder.place}: 'folder' is empty; name one, or leave it out")
    if folder is not None and "," in "".join(folder.texts):
        raise UsageError(f"{folder.place}: 'folder' has a comma, by which commands part the folders of several runs")
    if folder is not None and folder.value is not None:
        variables = {**variables, "folder": folder.texts[0].rstrip("/") or "/"}
    sections = {name: _options(tree.get(name), name, variables) for name in SECTIONS}
    return Recipe(
        path=path,
        name=" ".join(texts["name"].texts) if "name" in texts else "",
        description=" ".join(texts["description"].texts) if "description" in texts else "",
        folder=folder,
        sections=sections,
        arms=_arms(tree.get("arms"), variables),
        seeds=_seeds(tree.get("seeds"), variables),
        seeds_place=tree["seeds"].place if "seeds" in tree else "",
        primary=_options(tree.get("primary"), "primary", variables),
    )


def _variables(tree: Tree) -> dict[str, str]:
    """The variables, each of which may use those above it."""
    entry = tree.get("variables")
    variables: dict[str, str] = {}
    for name, inner in _mapping(entry, "variables").items():
        setting = _setting(inner, f"variables.{name}", variables)
        if name in _PARTS or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
            raise UsageError(f"{inner.place}: a variable cannot be called {name!r}; take letters, digits and _")
        if setting.value is None:
            raise UsageError(f"{inner.place}: the variable {name!r} has no value; give it one with --set {name}=…")
        if isinstance(setting.value, tuple):
            raise UsageError(f"{inner.place}: the variable {name!r} is one text, not a list")
        variables[name] = setting.value
    return variables


def _mapping(entry: Entry | None, name: str) -> Tree:
    if entry is None or entry.value is None:
        return {}
    if not isinstance(entry.value, dict):
        raise UsageError(f"{entry.place}: {name!r} must be a mapping of names to values")
    return entry.value


def _option(name: str) -> str:
    return name.replace("-", "_")


def _options(entry: Entry | None, name: str, variables: Mapping[str, str]) -> dict[str, Setting]:
    """The values of a section by the names of options, in which dashes are underscores."""
    found: dict[str, Setting] = {}
    for key, inner in _mapping(entry, name).items():
        setting = _setting(inner, f"{name}.{key}", variables)
        if _option(key) in found:
            raise UsageError(
                f"{inner.place}: {key!r} stands here a second time; its first place is {found[_option(key)].place}"
            )
        found[_option(key)] = setting
    return found


def _setting(entry: Entry, name: str, variables: Mapping[str, str]) -> Setting:
    if isinstance(entry.value, dict):
        raise UsageError(f"{entry.place}: {name!r} must be a value or a list of values, not a mapping")
    if isinstance(entry.value, tuple):
        return Setting(value=tuple(_filled(text, variables, entry.place) for text in entry.value), place=entry.place)
    value = entry.value if entry.value is None else _filled(entry.value, variables, entry.place)
    return Setting(value=value, place=entry.place)


def _filled(text: str, variables: Mapping[str, str], place: str) -> str:
    """A text with the values of its variables; `$${` stands for `${`."""

    def fill(found: re.Match[str]) -> str:
        if found.group() == "$${":
            return "${"
        name = found.group(1)
        if name is None:
            raise UsageError(f"{place}: '${{' has no closing brace; write $${{ for the two characters")
        if name not in variables:
            known = f" (there are {', '.join(variables)})" if variables else "; the recipe has none"
            raise UsageError(f"{place}: unknown variable {name!r}{nearest(name, variables) or known}")
        return variables[name]

    return _VARIABLE.sub(fill, text)


def _arms(entry: Entry | None, variables: Mapping[str, str]) -> dict[str, Arm]:
    arms = {}
    for name, inner in _mapping(entry, "arms").items():
        if not _ARM.fullmatch(name) or re.search(r"-\d+$", name):
            raise UsageError(f"{inner.place}: an arm cannot be called {name!r}; take letters, digits and _")
        sections = {}
        for section, values in _mapping(inner, f"arms.{name}").items():
            if section not in (TRAINING, EVALUATION):
                raise UsageError(
                    f"{values.place}: an arm has values of training and evaluation, not of {section!r}"
                    f"{nearest(section, (TRAINING, EVALUATION))}"
                )
            sections[section] = _options(values, f"arms.{name}.{section}", variables)
        arms[name] = Arm(sections=sections)
    return arms


def _seeds(entry: Entry | None, variables: Mapping[str, str]) -> tuple[int, ...]:
    if entry is None:
        return ()
    setting = _setting(entry, "seeds", variables)
    for text in setting.texts:
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise UsageError(f"{entry.place}: seeds: {text!r} is no whole number of 0 or more")
    seeds = tuple(map(int, setting.texts))
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"{entry.place}: seeds: each is given once")
    return seeds
