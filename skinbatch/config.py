"""Define and load the settings of a run, from a TOML file, keyword arguments, or both.

They are validated once, on entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from skinbatch.durations import moment_of
from skinbatch.errors import UsageError
from skinbatch.setting_errors import explain
from skinbatch.toml_file import read_toml
from skinbatch.worker_range import worker_count

MiB = 1 << 20


class _Section(BaseModel):
    """Hold one table of the settings file. Field descriptions become lines of docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _moment(value: Any) -> Any:
    """Read a moment that is written as text, or as a date or time of TOML."""
    if isinstance(value, date):  # also a datetime; one without a zone is one of this machine's own
        value = value.isoformat()
    return moment_of(value) if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    """Convert a single name to a list of names."""
    return (value,) if isinstance(value, str) else value


class SourceSettings(_Section):
    """Choose which files of the source are listed."""

    include: tuple[str, ...] = Field(
        default=(),
        description="List only keys that match one of these globs, such as `*.png`. Inside shards they are matched "
        "against `shard.tar/member`; a glob that matches the shard itself selects all of it.",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Leave out keys that match one of these globs, also inside shards."
    )
    image_column: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(),
        description="Column with the photos of Parquet files, or several: the first that a file has is read. Needed if "
        "a file has several columns with images and its metadata does not select one.",
    )
    follow_links: bool = Field(
        default=False,
        description="Follow links that lead out of a local source, too. Links within it are always followed.",
    )
    head: bool = Field(
        default=False,
        description="Ask the store for the size and version of every photo whose listing gives neither.",
    )
    content_hash: bool = Field(
        default=False,
        description="Detect changed local photos by the SHA-256 of their bytes instead of by their modification time.",
    )
    since: Annotated[datetime, BeforeValidator(_moment)] | None = Field(
        default=None,
        description="Leave out photos last modified before this moment, unless an earlier run has planned them: a date "
        "such as `2026-11-29`, or a length of time before now such as `36h`. A nightly run does not need it.",
    )
    only_new: bool = Field(
        default=False,
        description="Score only photos and shards that no earlier run has listed. Everything else keeps its rows, even "
        "if it has changed or is gone.",
    )


class StorageSettings(_Section):
    """Set how S3 is reached.

    Whatever is not set comes from the environment and files that boto3 reads.
    """

    endpoint_url: str | None = Field(
        default=None,
        description="Address of an S3-compatible store, such as `http://127.0.0.1:9000`.",
    )
    region: str | None = Field(default=None, description="AWS region of the buckets.")
    profile: str | None = Field(
        default=None, description="Profile in the AWS configuration files to take credentials from."
    )
    anonymous: bool = Field(
        default=False,
        description="Read the source without credentials. Requests to the destination are always signed.",
    )
    path_style: bool | None = Field(
        default=None,
        description="Address buckets as `endpoint/bucket`. By default only when `endpoint_url` is set.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=50)] = Field(
        default=8,
        description="Number of times a request is tried before the store counts as unreachable.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="Seconds to wait for a connection or for the next bytes of an answer.",
    )


class DecodeSettings(_Section):
    """Limit what one photo may cost. A photo over a limit gets the status `too_large`."""

    max_image_bytes: Annotated[int, Field(gt=0)] = Field(
        default=200 * MiB, description="Largest photo file, in bytes."
    )
    max_pixels: Annotated[int, Field(gt=0)] = Field(
        default=100_000_000, description="Largest photo, in pixels (width x height)."
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Threads in each worker that fetch and decode photos ahead of the models. By "
        "default chosen from the worker's cores, and 16 to fetch from S3.",
    )
    ahead_bytes: Annotated[int, Field(gt=0)] = Field(
        default=256 * MiB,
        description="Bytes that each worker may hold in fetched files, and again in decoded pixels. "
        "Raise it for large photos on many cores or on a GPU. A photo that is larger still is scored alone.",
    )


class GradingSettings(_Section):
    """Choose how stored boxes are counted and graded.

    None of this is part of the scoring's fingerprint.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Lowest score of a counted box. By default the pack's threshold."
    )
    counting: Literal["boxes", "components"] = Field(
        default="boxes",
        description="Count the boxes, or the connected areas that the boxes cover.",
    )
    scheme: Literal["hayashi", "acne04", "iga-like"] = Field(
        default="hayashi", description="Grading scheme that turns counts into a grade."
    )
    view: Literal["auto", "frontal", "half"] = Field(
        default="auto",
        description="View of every photo in the archive. `auto` decides for each photo by the position of its nose.",
    )


class ModelSettings(_Section):
    """Change the numbers themselves. These settings are part of the scoring's fingerprint."""

    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        default=None,
        description="Lowest number format that the networks may compute in. `bf16` is used where the processor or GPU "
        "has it, and fp32 elsewhere; `fp16` needs a GPU. By default the pack's: fp32, unless it declares another.",
    )
    score_floor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="Lowest score of a box that is stored."
    )
    nms_iou: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Overlap (IoU) above which non-maximum suppression keeps only the better box. By "
        "default the pack's value.",
    )
    max_boxes: Annotated[int, Field(ge=1)] = Field(
        default=500, description="Most boxes that are stored for one photo."
    )


class EngineSettings(_Section):
    """Choose where and how units run. None of this changes a number."""

    name: Literal["ray", "local"] = Field(
        default="ray",
        description="Engine: `ray` (embedded unless a cluster is named) or `local` (one child process).",
    )
    ray_address: str | None = Field(
        default=None,
        description="Address of a Ray cluster. By default the environment variable `RAY_ADDRESS`, and "
        "without it an embedded Ray.",
    )
    workers: Annotated[Annotated[int, Field(ge=1)] | str, BeforeValidator(worker_count)] | None = (
        Field(
            default=None,
            description="Number of workers, or `MIN:MAX`. By default one for each GPU, or one for each core with 2 GB of memory. "
            "With a range, up to `MAX` start as nodes come, and there must be room for `MIN`: on this machine, or in "
            "the cluster with what its autoscaler may add, if that can be read.",
        )
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description="Run the models on this device. `gpu` waits for a node that has one, `auto` takes the GPUs that the "
        "cluster has or that its autoscaler may add.",
    )
    runtime: Literal["auto", "torch", "openvino"] = Field(
        default="auto",
        description="Library that runs the networks on a CPU. `auto` and `openvino` take OpenVINO for each network with "
        "which it gives torch's numbers, and torch for the others; `openvino` warns if it is not installed. "
        "For ONNX files, `auto` takes the faster one of ONNX Runtime and OpenVINO.",
    )
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="CPU cores that Ray reserves for each worker."
    )
    gpus_per_worker: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="GPUs that Ray reserves for each worker, a whole number or a fraction: with 0.25, four workers share "
        "one. A run ends if a worker uses more GPU memory than its share. By default one if the cluster has any, else none.",
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Photos in one call of a model. By default 4 on a CPU and 32 on a GPU.",
    )
    start_timeout_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Seconds to wait for the first worker before the run ends with exit code 4. By default half an hour "
        "if the cluster is busy or its autoscaler may add a node, and 45 seconds if no node can have what a worker needs.",
    )
    stall_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=120.0,
        description="Seconds without a decoded photo or a finished call of a model after which a worker "
        "is given up and its unit is tried again.",
    )


class RunSettings(_Section):
    """Decide when a run stops and what it writes besides the tables."""

    limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Stop once this many photos are scored (exit code 6). Units that have begun are finished.",
    )
    max_failures: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05,
        description="Share of all photos that may fail before a finished run ends with exit code 3.",
    )
    max_gone: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="Share of the listed photos that may be gone in a run before anything was finished. More than that "
        "ends it with exit code 4, because a wrong listing is then more likely than deleted photos.",
    )
    stop_failures: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="Share of failures that stops the run early (exit code 6), judged after at least 1,000 photos.",
    )
    deadline_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds after which no more units are handed out (exit code 6)."
    )
    save_masks: bool = Field(
        default=False, description="Also write the segmentation masks, as COCO run lengths."
    )
    reuse: bool = Field(
        default=True,
        description="Take the results of models that have not changed from an earlier scoring of the same photos in the "
        "destination, instead of running these models again.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Format of messages on stderr. `json` prints one object a line with `event`, "
        "`unit_id` and `image_id`.",
    )


class PriceSettings(_Section):
    """Set prices, for what `status`, `report` and `plan` say about costs.

    Take them from your provider's list; there are no defaults.
    """

    currency: str | None = Field(
        default=None, description="Currency of the prices, such as `EUR`. Needed if there is any."
    )
    cpu_worker_hour: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Price of an hour of one worker without a GPU."
    )
    gpu_worker_hour: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Price of an hour of one worker with a GPU or a share of one."
    )
    thousand_gets: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Price of 1,000 requests to S3 that read objects (GET, HEAD)."
    )
    thousand_puts: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Price of 1,000 requests to S3 that write objects or list them (PUT, LIST).",
    )

    @model_validator(mode="after")
    def _has_currency(self) -> PriceSettings:
        prices = self.model_dump(exclude={"currency"}, exclude_none=True)
        if prices and not (self.currency or "").strip():
            raise PydanticCustomError(
                "currency", "prices need a currency; set currency = 'EUR', or what they are in"
            )
        return self

    @property
    def given(self) -> bool:
        """Return whether any price is set."""
        return bool(self.model_dump(exclude={"currency"}, exclude_none=True))


class Config(_Section):
    """Hold all settings of one run.

    Unknown names and wrong types raise a UsageError that names the setting.
    """

    pack: str = Field(default="starter", description="Name of a model pack, or its folder.")
    source: SourceSettings = SourceSettings()
    storage: StorageSettings = StorageSettings()
    decode: DecodeSettings = DecodeSettings()
    grading: GradingSettings = GradingSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    run: RunSettings = RunSettings()
    prices: PriceSettings = PriceSettings()


# Section -> setting -> value, or setting -> value for settings outside a section. None means "not
# set".
Overrides = Mapping[str, Mapping[str, Any] | str | None]


def load_config(path: str | Path | None = None, overrides: Overrides | None = None) -> Config:
    """Load settings from a TOML file and apply `overrides`, such as `{"engine": {"workers": 2}}`.

    Overrides that are None are ignored. Raises UsageError that names the file and the setting, and
    lists the settings that exist.
    """
    data: dict[str, Any] = {}
    where = "settings"
    if path is not None:
        where = str(path)
        try:
            data = read_toml(Path(path))
        except FileNotFoundError:
            raise UsageError(f"{where}: no such settings file") from None
    return parse_config(_merged(data, overrides or {}), where)


def merge(config: Config, overrides: Overrides) -> Config:
    """Return `config` with `overrides` applied. Raises UsageError as `load_config` does."""
    return parse_config(_merged(config.model_dump(), overrides))


def _merged(data: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    for section, values in overrides.items():
        if isinstance(values, Mapping):
            set_values = {k: v for k, v in values.items() if v is not None}
            if set_values:
                below = data.get(section)
                data[section] = (below if isinstance(below, dict) else {}) | set_values
        elif values is not None:
            data[section] = values
    return data


def parse_config(data: Mapping[str, Any], where: str = "settings") -> Config:
    """Return a Config from plain values, as TOML has them. Raises UsageError as `load_config` does."""
    try:
        return Config.model_validate(_tuples(data))
    except ValidationError as e:
        raise UsageError("\n".join(explain(error, where, Config) for error in e.errors())) from None


def _tuples(value: Any) -> Any:
    """Convert lists to tuples, which strict validation requires."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value
