"""From options to what a run is: frozen dataclasses that are checked when they are made.

Each field carries its own help and unit, so that the command line and the recipe are made from this one place.
The defaults are the paper's (8 processes x 256 rows x 2,048 tokens, 50 steps, learning rate 5e-6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from leia_beam.errors import UsageError
from leia_train.mix_sources import RUN, MixSource, read_sources

STRATEGIES = ("right", "left", "replace", "none")
MARKERS = ("special", "reserved", "text", "none")
NAMES = ("true", "permuted", "anchor")
BUDGETS = ("tokens", "target_tokens")
COMPATS = ("none", "leia")
DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("auto", "flash", "varlen", "flex", "sdpa", "eager")
CHECKPOINTINGS = ("none", "selective", "full")
ROUNDINGS = ("stochastic", "kahan")
SCHEDULES = ("cosine", "linear", "constant", "wsd")
TRACKERS = ("auto", "none", "tensorboard", "wandb", "trackio")
FORMS = ("rows", "axolotl", "text")
FILE_FORMATS = ("parquet", "jsonl")
EXPORT_FORMS = ("model", "adapter")
EXPORT_DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu")
EVAL_PROFILES = ("standard", "reference")
TINY_LLAMA = "tiny-llama"
_MAX_DOSES = 256


def option(
    help_text: str,
    *,
    default: Any = None,
    choices: tuple[str, ...] | None = None,
    required: bool = False,
    metavar: str | None = None,
    commas: bool = False,
    repeated: bool = False,
) -> Any:
    """A field with what the command line says of it; `commas`: a list that is one word; `repeated`: flags that add up."""
    metadata = {"help": help_text, "choices": choices, "required": required, "metavar": metavar}
    metadata |= {"commas": commas, "repeated": repeated}
    return field(metadata=metadata) if required else field(default=default, metadata=metadata)


def _check(holds: bool, flag: str, value: object, rule: str) -> None:
    if not holds:
        raise UsageError(f"--{flag} {value}: must be {rule}")


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, flag, value, f"one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which rows the model sees."""

    shards: tuple[str, ...] = option("folders of finished shards (one a wiki)", required=True, metavar="DIR")
    strategy: str = option(
        "where the name goes: after the entity, before it, in its place", default="right", choices=STRATEGIES
    )
    probability: float = option("probability of inserting a name, per entity and epoch (0 to 1)", default=0.5)
    probability_buckets: tuple[float, ...] = option(
        "probabilities by hash of the name instead, each for an equal share of the names (a dose, like 0 0.25 0.5 1)",
        default=(),
        metavar="X",
    )
    names: str = option(
        "what is inserted: the entity's name, another's of its length, or the anchor's own tokens again (control arms)",
        default="true",
        choices=NAMES,
    )
    entities: tuple[str, ...] = option(
        "only entities of which this holds, like blocks=prose kinds!=mention qids!=Q17 ordinals=0-9",
        default=(),
        metavar="CONDITION",
    )
    markers: str = option(
        "around a name: two new tokens, two unused ones of the tokenizer, --marker-text, or nothing",
        default="special",
        choices=MARKERS,
    )
    marker_text: tuple[str, ...] = option(
        "two texts: around a name with --markers text, the unused tokens themselves with --markers reserved",
        default=(),
        metavar="TEXT",
    )
    name_loss: bool = option("names count in the loss (markers never do)", default=True)
    max_length: int = option("length of a packed row (tokens)", default=2048)
    cross_document: bool = option(
        "documents of a row see each other and end without EOS, as in the reference", default=False
    )
    document_end: bool = option("an EOS, with loss, after each document where they are kept apart", default=True)
    budget: str = option(
        "--steps counts all tokens, or the articles' own alone (insertion takes up 4 to 8 % of the rows)",
        default="tokens",
        choices=BUDGETS,
    )
    compat: str = option(
        "leia: the reference's stream row for row; sets --cross-document and --validation-share 0",
        default="none",
        choices=COMPATS,
    )
    validation_share: float = option(
        "share of articles kept out of training for the evaluation loss (0 to 1)", default=0.001
    )
    mix: tuple[str, ...] = option(
        "other sources with their shares of the run's tokens: NAME=PATH:SHARE, like english=english.jsonl.gz:25%; PATH is "
        "a file of text (.txt, .jsonl, .parquet), a pattern, a folder of them, or a folder of shards; settings after a "
        "comma (strategy=run, column=text, documents=line, …); the shards have the rest",
        default=(),
        metavar="SOURCE",
        repeated=True,
    )
    mix_store: str = option(
        "folder of the sources' tokens, for several runs to share; empty for the run's own", default=""
    )

    def __post_init__(self) -> None:
        _check(len(self.shards) > 0, "shards", "", "at least one folder")
        _check_choice("strategy", self.strategy, STRATEGIES)
        _check_choice("markers", self.markers, MARKERS)
        _check(0 <= self.probability <= 1, "probability", self.probability, "from 0 to 1")
        _check_choice("names", self.names, NAMES)
        _check_choice("budget", self.budget, BUDGETS)
        _check_choice("compat", self.compat, COMPATS)
        doses = len(self.probability_buckets)
        _check(doses <= _MAX_DOSES, "probability-buckets", f"with {doses} values", f"at most {_MAX_DOSES} of them")
        for value in self.probability_buckets:
            _check(0 <= value <= 1, "probability-buckets", value, "from 0 to 1")
        _check(self.max_length >= 2, "max-length", self.max_length, "at least 2 tokens")
        _check(0 <= self.validation_share < 1, "validation-share", self.validation_share, "from 0 to below 1")
        texts = len(self.marker_text)
        if self.markers == "text":
            _check(texts == 2 and all(self.marker_text), "marker-text", list(self.marker_text), "two texts")
        elif self.markers == "reserved":
            _check(texts in (0, 2), "marker-text", list(self.marker_text), "two tokens, or none to take the first two")
        else:
            _check(texts == 0, "marker-text", list(self.marker_text), "given with --markers text or reserved alone")
        self._check_mix()
        if self.compat == "leia":
            self._follow_the_reference()

    @property
    def sources(self) -> tuple[MixSource, ...]:
        """What `mix` says."""
        return read_sources(self.mix)

    def of_source(self, source: MixSource) -> DataConfig:
        """The options of a source's own rows: what it leaves out is the run's."""
        strategy = self.strategy if source.strategy == RUN else source.strategy
        entities = self.entities if source.entities is None else source.entities
        share = self.validation_share if source.validation_share is None else source.validation_share
        return replace(
            self,
            mix=(),
            budget="tokens",
            strategy=strategy,
            probability=self.probability if source.probability is None else source.probability,
            probability_buckets=self.probability_buckets if source.probability is None else (),
            names=(source.names or self.names) if strategy != "none" else "true",
            entities=entities if strategy != "none" else (),
            validation_share=share,
        )

    def identity(self) -> dict[str, Any]:
        """What the rows depend on besides the content of shards and sources: no paths."""
        content = {**asdict(self), "mix": [source.text("-") for source in self.sources]}
        del content["shards"], content["mix_store"]
        if not self.mix:
            del content["mix"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}

    def _check_mix(self) -> None:
        for source in self.sources:
            name = f"mix {source.name}:"
            _check_choice(f"{name} strategy", source.strategy, (*STRATEGIES, RUN))
            _check_choice(f"{name} names", source.names or NAMES[0], NAMES)
            for setting in ("probability", "validation_share"):
                value = getattr(source, setting)
                _check(value is None or 0 <= value <= 1, f"{name} {setting}", value, "from 0 to 1")
            _check((source.validation_share or 0) < 1, f"{name} validation_share", source.validation_share, "below 1")
        main = 1 - sum(source.share for source in self.sources)
        _check(
            main > 0 or self.budget == "tokens", "budget", self.budget, "tokens where --mix leaves the shards nothing"
        )

    def _follow_the_reference(self) -> None:
        """Set what `--compat leia` implies, and refuse what the reference does not have."""
        for name, wanted in (("names", "true"), ("markers", "special"), ("budget", "tokens")):
            _check(getattr(self, name) == wanted, name, getattr(self, name), f"{wanted} with --compat leia")
        for name in ("probability_buckets", "entities", "mix"):
            given = list(getattr(self, name))
            _check(not given, name.replace("_", "-"), given, "left out with --compat leia")
        object.__setattr__(self, "cross_document", True)
        object.__setattr__(self, "validation_share", 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which model is trained; the tiny sizes are read for `tiny-llama` alone, which has random weights."""

    model: str = option(f"folder or hub name of a causal LM, or {TINY_LLAMA} (random weights)", required=True)
    tiny_hidden_size: int = option(f"{TINY_LLAMA}: width", default=64)
    tiny_intermediate_size: int = option(f"{TINY_LLAMA}: width of the feed-forward part", default=128)
    tiny_layers: int = option(f"{TINY_LLAMA}: layers", default=2)
    tiny_heads: int = option(f"{TINY_LLAMA}: attention heads", default=4)
    tiny_kv_heads: int = option(f"{TINY_LLAMA}: key and value heads", default=2)
    attention: str = option(
        "flash-attn, torch's own varlen or flex, sdpa, eager; auto takes the first that works here",
        default="auto",
        choices=ATTENTIONS,
    )
    dtype: str = option(
        "type of the computation; weights and optimizer stay float32", default="float32", choices=DTYPES
    )
    weights: str = option(
        "type of the weights; bfloat16 saves half of their memory; those that are trained are rounded as --rounding says",
        default="float32",
        choices=DTYPES,
    )
    rounding: str = option("how bfloat16 weights are updated", default="stochastic", choices=ROUNDINGS)
    lora: int = option(
        "rank of adapters (LoRA) that are trained with the markers' rows in place of all weights; 0 for none", default=0
    )
    lora_alpha: int = option("scale of the adapters, which is divided by the rank; 0 for twice the rank", default=0)
    lora_dropout: float = option("share of an adapter's inputs that are left out at random (0 to 1)", default=0.0)
    lora_targets: tuple[str, ...] = option(
        "layers that get an adapter, like q_proj v_proj; none for all linear ones but the output embeddings",
        default=(),
        metavar="LAYER",
    )
    loss_chunk: int = option(
        "tokens whose logits are in memory at once; 0 for as many as fit 256 MiB, or 1/64 of a GPU's memory", default=0
    )
    marker_logits: bool = option(
        "the markers' logits are in the softmax (with tied embeddings: leave them out)", default=True
    )
    activation_checkpointing: str = option(
        "what a block keeps for its backward pass: none: all that it needs; selective: results of matrix products and "
        "attention; full: its input; the rest is computed again",
        default="none",
        choices=CHECKPOINTINGS,
    )
    activation_offload: bool = option(
        "blocks' inputs wait for the backward pass in main memory; with --activation-checkpointing full or selective",
        default=False,
    )
    compile: bool = option("compile the model with torch.compile", default=False)
    liger: bool = option("Liger's fused kernels, where liger-kernel is installed; GPUs alone", default=False)
    trust_remote_code: bool = option("run the code in the model's repository; it is listed first", default=False)

    def __post_init__(self) -> None:
        _check(self.model != "", "model", "''", f"a folder, a hub name or {TINY_LLAMA}")
        for name in ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads"):
            value = getattr(self, f"tiny_{name}")
            _check(value >= 1, f"tiny-{name.replace('_', '-')}", value, "at least 1")
        even_heads = self.tiny_hidden_size % (2 * self.tiny_heads) == 0
        _check(even_heads, "tiny-hidden-size", self.tiny_hidden_size, "a multiple of twice --tiny-heads")
        _check(
            self.tiny_heads % self.tiny_kv_heads == 0, "tiny-heads", self.tiny_heads, "a multiple of --tiny-kv-heads"
        )
        _check_choice("attention", self.attention, ATTENTIONS)
        _check_choice("dtype", self.dtype, DTYPES)
        _check_choice("weights", self.weights, DTYPES)
        _check_choice("rounding", self.rounding, ROUNDINGS)
        _check(self.loss_chunk >= 0, "loss-chunk", self.loss_chunk, "0 or above")
        way = self.activation_checkpointing
        _check_choice("activation-checkpointing", way, CHECKPOINTINGS)
        if self.activation_offload and way == "none":
            raise UsageError(
                "--activation-offload: moves blocks' inputs alone; give --activation-checkpointing selective or full with it"
            )
        self._check_lora()
        both = self.weights == "float32" or self.dtype == "bfloat16"
        _check(both, "weights", self.weights, "float32 unless --dtype is bfloat16 too")

    @property
    def scale(self) -> int:
        """Of the adapters, before it is divided by the rank."""
        return self.lora_alpha or 2 * self.lora

    def _check_lora(self) -> None:
        _check(self.lora >= 0, "lora", self.lora, "0 or above")
        _check(self.lora_alpha >= 0, "lora-alpha", self.lora_alpha, "0 or above")
        _check(0 <= self.lora_dropout < 1, "lora-dropout", self.lora_dropout, "from 0 to below 1")
        for name in ("alpha", "dropout", "targets"):
            value = getattr(self, f"lora_{name}")
            given = " ".join(value) if isinstance(value, tuple) else value
            _check(bool(self.lora) or not value, f"lora-{name}", given, "left out without --lora")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizationConfig:
    """How the weights move."""

    steps: int = option("updates of the weights", default=50)
    batch: int = option("rows in an update, over all processes", default=2048)
    micro_batch: int = option("rows computed at once by a process; the loss does not depend on it", default=4)
    learning_rate: float = option("highest learning rate", default=5e-6)
    schedule: str = option(
        "learning rate after the warmup: to 0 as a cosine or linearly, constant, or constant and then to 0 (wsd)",
        default="cosine",
        choices=SCHEDULES,
    )
    decay_share: float = option("wsd: share of the steps in which it falls (0 to 1)", default=0.2)
    marker_learning_rate: float = option(
        "learning rate of the markers' embeddings; 0 for that of all weights", default=0.0
    )
    warmup: int = option("updates over which the learning rate rises", default=0)
    weight_decay: float = option("AdamW's weight decay, on matrices alone", default=0.1)
    beta1: float = option("AdamW's first beta", default=0.9)
    beta2: float = option("AdamW's second beta", default=0.95)
    epsilon: float = option("AdamW's epsilon", default=1e-6)
    clip: float = option("largest norm of the gradient; 0 for none", default=1.0)
    seed: int = option("seed of the order, the draws and random weights", default=42)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch"):
            _check(getattr(self, name) >= 1, name.replace("_", "-"), getattr(self, name), "at least 1")
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value > 0, name.replace("_", "-"), value, "above 0")
        for name in ("beta1", "beta2", "decay_share"):
            value = getattr(self, name)
            top = 1 if name == "decay_share" else math.nextafter(1, 0)
            _check(0 <= value <= top, name.replace("_", "-"), value, "from 0 to 1" if top == 1 else "from 0 to below 1")
        _check_choice("schedule", self.schedule, SCHEDULES)
        for name in ("weight_decay", "clip", "marker_learning_rate"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value >= 0, name.replace("_", "-"), value, "0 or above")
        _check(0 <= self.warmup <= self.steps, "warmup", self.warmup, f"from 0 to --steps ({self.steps})")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to below 2^63")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where a run goes and what it says; none of it changes the weights."""

    output: str = option("folder of the run; the same command goes on from its newest checkpoint", required=True)
    save_every: int = option(
        "steps between two checkpoints to resume from; 0 for none but at an interruption", default=500
    )
    keep: int = option("checkpoints to resume from that are kept", default=2)
    device: str = option("auto takes a GPU where there is one", default="auto", choices=DEVICES)
    nproc: int = option(
        "processes on this machine, started here; under a launcher: how many there must be (0: any; for torchrun, which "
        "takes the flag for its own, write --set training.nproc=N)",
        default=0,
    )
    share_optimizer: bool = option(
        "each process keeps the optimizer's state of a part of the weights alone, which changes nothing else",
        default=False,
    )
    shard_model: bool = option(
        "each process holds a part of the weights, the gradients and the optimizer's state alone (FSDP2); also asked for by "
        "accelerate's configuration file",
        default=False,
    )
    eval_every: int = option("steps between two evaluations; 0 for one at the end", default=0)
    eval_text: tuple[str, ...] = option(
        "text files (UTF-8) that are evaluated too, like English to see forgetting", default=(), metavar="FILE"
    )
    eval_shards: tuple[str, ...] = option("folders of shards that are evaluated too", default=(), metavar="DIR")
    eval_inserted: bool = option("the validation articles with names inserted as a second figure", default=True)
    eval_tasks: tuple[str, ...] = option(
        "tasks of leia-eval that the final model is scored on; see leia-eval ls", default=(), metavar="TASK"
    )
    eval_tasks_every: int = option("steps between two scorings of --eval-tasks; 0 for one at the end", default=0)
    eval_tasks_data: str = option("folder of the tasks' data; empty for the hub", default="")
    eval_tasks_profile: str = option("leia-eval's own rules, or the paper's", default="standard", choices=EVAL_PROFILES)
    eval_tasks_shots: int = option("solved items before each; -1 for the profile's own", default=-1)
    eval_tasks_limit: int = option("first items of each task that are scored; 0 for all", default=0)
    eval_tasks_batch: int = option("requests that are answered at once", default=8)
    tracker: str = option("where metrics go too; auto: TensorBoard if installed", default="auto", choices=TRACKERS)
    spike: float = option(
        "warn of a loss above so many times the median of the last 20 steps; 0 for never", default=2.0
    )
    accept_other_code: bool = option("go on with a run that another version of this code began", default=False)
    quiet: bool = option("no notes and no progress: warnings and the error alone", default=False)
    log_json: bool = option("on standard error one JSON object a line, for collectors of logs", default=False)

    def __post_init__(self) -> None:
        _check(self.output != "", "output", "''", "a folder")
        _check(self.save_every >= 0, "save-every", self.save_every, "0 or above")
        _check(self.keep >= 1, "keep", self.keep, "at least 1")
        _check(self.nproc >= 0, "nproc", self.nproc, "0 or above")
        _check(self.eval_every >= 0, "eval-every", self.eval_every, "0 or above")
        _check(self.eval_tasks_every >= 0, "eval-tasks-every", self.eval_tasks_every, "0 or above")
        _check_choice("eval-tasks-profile", self.eval_tasks_profile, EVAL_PROFILES)
        _check(self.eval_tasks_shots >= -1, "eval-tasks-shots", self.eval_tasks_shots, "-1 or above")
        _check(self.eval_tasks_limit >= 0, "eval-tasks-limit", self.eval_tasks_limit, "0 or above")
        _check(self.eval_tasks_batch >= 1, "eval-tasks-batch", self.eval_tasks_batch, "at least 1")
        _check(math.isfinite(self.spike) and self.spike >= 0, "spike", self.spike, "0 or above")
        _check_choice("tracker", self.tracker, TRACKERS)
        _check_choice("device", self.device, DEVICES)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """All of a run."""

    data: DataConfig
    model: ModelConfig
    optimization: OptimizationConfig
    run: RunConfig

    def __post_init__(self) -> None:
        _check(not (self.model.lora and self.run.shard_model), "lora", self.model.lora, NOT_IN_PARTS)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the run before: all that changes the weights, but no paths of shards.

        What changes rounding alone is left out (it is what one changes after running out of memory, or on another
        machine): the size of a micro-batch, the kernels, recomputation.
        """
        content = {**self.data.identity(), **asdict(self.model), **asdict(self.optimization)}
        content["lora_alpha"] = self.model.scale  # given or not
        for name in (*_ROUNDING_ALONE, *(("rounding",) if self.model.lora else _OF_LORA)):
            del content[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}


NOT_IN_PARTS = (
    "0 with --shard-model or DeepSpeed; each process holds the whole frozen model, --weights bfloat16 halves it"
)
_OF_LORA = ("lora", "lora_alpha", "lora_dropout", "lora_targets")
_ROUNDING_ALONE = (
    *("micro_batch", "attention", "loss_chunk", "activation_checkpointing", "activation_offload", "compile", "liger"),
    "trust_remote_code",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BakeConfig:
    """Which of a run's rows are written for another trainer, and how."""

    output: str = option("folder of the baked rows", required=True)
    form: str = option(
        "packed rows as this trainer reads them; one document a row; or plain text with the names in it",
        default="rows",
        choices=FORMS,
    )
    file_format: str = option("parquet, or jsonl for text", default="parquet", choices=FILE_FORMATS)
    rows: int = option("rows that are written; 0 for those of --steps updates of --batch rows", default=0)
    epochs: int = option("epochs that are written with form axolotl or text, document by document", default=1)
    rows_per_file: int = option("rows of a file", default=16384)

    def __post_init__(self) -> None:
        _check(self.output != "", "output", "''", "a folder")
        _check_choice("form", self.form, FORMS)
        _check_choice("file-format", self.file_format, FILE_FORMATS)
        _check(
            self.file_format == "parquet" or self.form == "text",
            "file-format",
            self.file_format,
            "parquet but for --form text",
        )
        _check(self.rows >= 0, "rows", self.rows, "0 or above")
        for name in ("epochs", "rows_per_file"):
            _check(getattr(self, name) >= 1, name.replace("_", "-"), getattr(self, name), "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Which checkpoint becomes a model for others, and in which type."""

    checkpoint: str = option(
        "a run's folder (its final or newest checkpoint), a checkpoint's or an adapter's", required=True
    )
    output: str = option("folder of the model", required=True)
    form: str = option(
        "a whole model, or what --lora trained alone, as PEFT reads it", default="model", choices=EXPORT_FORMS
    )
    dtype: str = option(
        "type of the weights; but for float32 it is said how much of what was learnt rounding takes",
        default="float32",
        choices=EXPORT_DTYPES,
    )
    base: str = option("the model that training began with; empty for the one that the run notes", default="")

    def __post_init__(self) -> None:
        _check_choice("form", self.form, EXPORT_FORMS)
        _check_choice("dtype", self.dtype, EXPORT_DTYPES)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposuresConfig:
    """Of which run the exposures are counted, and until when."""

    run: str = option("a run's folder", required=True)
    step: int = option("count up to the end of this step; 0 for the run's last one", default=0)
    output: str = option("Parquet file, or .jsonl; empty for a table of the most frequent on the terminal", default="")

    def __post_init__(self) -> None:
        _check(self.step >= 0, "step", self.step, "0 or above")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What a plan is made for."""

    gpus: str = option("GPUs to plan for, such as 8xH100; empty for the one that is here", default="", metavar="NxNAME")
    accelerate_config: str = option(
        "accelerate's configuration file that the run is launched with, such as recipes/accelerate/zero3-8gpu.yaml: how many "
        "processes and machines, and how they share the model (FSDP2, DeepSpeed ZeRO-3)",
        default="",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Which runs of a recipe's study are done, and what is said of it."""

    arms: tuple[str, ...] = option(
        "these arms alone, where any are named", default=(), metavar="ARM[,ARM…]", commas=True
    )
    seeds: tuple[int, ...] = option("these seeds alone, where any are named", default=(), metavar="N[,N…]", commas=True)
    dry_run: bool = option("say what would be done", default=False)
    quiet: bool = option("no notes and no progress: warnings and the error alone", default=False)
    log_json: bool = option("on standard error one JSON object a line, for collectors of logs", default=False)

    def __post_init__(self) -> None:
        for seed in self.seeds:
            _check(0 <= seed < 2**63, "seeds", seed, "from 0 to below 2^63")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Which runs are shown on one page, and where that goes."""

    runs: tuple[str, ...] = option("runs' folders; several are drawn over each other", required=True, metavar="RUN")
    output: str = option("HTML file; empty for report.html in the folder of a single run", default="")
    exposures: bool = option("count how often links were seen, which reads the run's store", default=True)


GROUPS: Mapping[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimization": OptimizationConfig,
    "run": RunConfig,
}
"""The parts of a TrainConfig by field; in a recipe all their values stand in `training`."""
