"""From options to what each command but `train` is asked for: rows for others, an export, counts, a plan, a study, a page."""

from __future__ import annotations

from dataclasses import dataclass

from leia_train.option_fields import check, check_choice, option

FORMS = ("rows", "axolotl", "text")
FILE_FORMATS = ("parquet", "jsonl")
EXPORT_FORMS = ("model", "adapter")
EXPORT_DTYPES = ("float32", "bfloat16", "float16")


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
        check(self.output != "", "output", "''", "a folder")
        check_choice("form", self.form, FORMS)
        check_choice("file-format", self.file_format, FILE_FORMATS)
        check(
            self.file_format == "parquet" or self.form == "text",
            "file-format",
            self.file_format,
            "parquet but for --form text",
        )
        check(self.rows >= 0, "rows", self.rows, "0 or above")
        for name in ("epochs", "rows_per_file"):
            check(getattr(self, name) >= 1, name.replace("_", "-"), getattr(self, name), "at least 1")


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
        check_choice("form", self.form, EXPORT_FORMS)
        check_choice("dtype", self.dtype, EXPORT_DTYPES)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposuresConfig:
    """Of which run the exposures are counted, and until when."""

    run: str = option("a run's folder", required=True)
    step: int = option("count up to the end of this step; 0 for the run's last one", default=0)
    output: str = option("Parquet file, or .jsonl; empty for a table of the most frequent on the terminal", default="")

    def __post_init__(self) -> None:
        check(self.step >= 0, "step", self.step, "0 or above")


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
            check(0 <= seed < 2**63, "seeds", seed, "from 0 to below 2^63")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Which runs are shown on one page, and where that goes."""

    runs: tuple[str, ...] = option("runs' folders; several are drawn over each other", required=True, metavar="RUN")
    output: str = option("HTML file; empty for report.html in the folder of a single run", default="")
    exposures: bool = option("count how often links were seen, which reads the run's store", default=True)
