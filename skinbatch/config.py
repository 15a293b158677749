"""The run's settings: one TOML file, keyword arguments, or both; validated where they enter, never again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skinbatch.errors import UsageError
from skinbatch.toml_file import read_toml

MiB = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceSettings(_Section):
    """[source] What is listed. Globs are matched against the key relative to the source."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    head: bool = False
    """Ask the store for size and version of every photo of a listing that has neither."""
    content_hash: bool = False
    """Local photos: the version is the SHA-256 of the bytes, not the modification time."""


class StorageSettings(_Section):
    """[storage] How S3 is reached; what is not set comes from the environment and files that boto3 reads."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    """Unsigned requests to the source; the destination is always signed."""
    path_style: bool | None = None
    """None: path style when an endpoint_url is set."""
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 60.0


class DecodeSettings(_Section):
    """[decode] Limits on one photo; what is over them gets the status `too_large`."""

    max_image_bytes: Annotated[int, Field(gt=0)] = 200 * MiB
    max_pixels: Annotated[int, Field(gt=0)] = 100_000_000
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads that fetch and decode ahead in each worker; None: from the worker's cores."""
    ahead_bytes: Annotated[int, Field(gt=0)] = 256 * MiB
    """Bytes of files that wait to be decoded, and of pixels (3 x width x height) that wait or are scored, in each worker; a
    photo that is larger still is scored alone. Where photos are large, more of it keeps more cores, or a GPU, busy."""


class GradingSettings(_Section):
    """[grading] Applied to stored boxes; not part of a scoring's fingerprint."""

    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """None: the pack's."""
    counting: Literal["boxes", "components"] = "boxes"
    scheme: Literal["hayashi"] = "hayashi"
    view: Literal["auto", "frontal", "half"] = "auto"
    """Set when every photo of the archive is of one kind; auto tells by the nose."""


class ModelSettings(_Section):
    """[model] What changes numbers apart from the pack; part of the fingerprint."""

    precision: Literal["fp32", "fp16"] = "fp32"
    score_floor: Annotated[float, Field(ge=0, le=1)] = 0.05
    nms_iou: Annotated[float, Field(gt=0, le=1)] | None = None
    """None: the pack's."""
    max_boxes: Annotated[int, Field(ge=1)] = 500


class EngineSettings(_Section):
    """[engine] Where units run; changes no number."""

    name: Literal["ray", "local"] = "ray"
    ray_address: str | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """None: one whole GPU a worker if the cluster has any, else none. Fractions share a GPU."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """None: 4 on a CPU, 32 on a GPU."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """A worker that decodes no photo and ends no call of a model for this long is given up, and its unit tried again."""


class RunSettings(_Section):
    """[run] When to stop."""

    limit: Annotated[int, Field(ge=1)] | None = None
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.05
    stop_failures: Annotated[float, Field(ge=0, le=1)] = 0.5
    """After at least 1,000 photos, more failures than this share stop the run: a broken pack should not burn a night."""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    save_masks: bool = False
    log_format: Literal["text", "json"] = "text"
    """json: what the run says on stderr is one object a line, with an event's name, its unit and its image."""


class Config(_Section):
    """All settings of one run. Unknown names and wrong types are UsageErrors that name the setting."""

    pack: str = "starter"
    source: SourceSettings = SourceSettings()
    storage: StorageSettings = StorageSettings()
    decode: DecodeSettings = DecodeSettings()
    grading: GradingSettings = GradingSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    run: RunSettings = RunSettings()


Overrides = Mapping[str, Mapping[str, Any] | str | None]
"""Section -> setting -> value, or a setting that has no section -> value; None is not set."""


def load_config(path: str | Path | None = None, overrides: Overrides | None = None) -> Config:
    """Settings from a TOML file, then `overrides` on top (`{"engine": {"workers": 2}}`); None values are not set.

    Raises UsageError naming the file and the setting, with the settings that exist.
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
    """`config` with `overrides` on top. Raises UsageError as `load_config` does."""
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
    """Config from plain values, as TOML gives them. Raises UsageError as `load_config` does."""
    try:
        return Config.model_validate(_tuples(data))
    except ValidationError as e:
        raise UsageError("\n".join(_explain(err, where) for err in e.errors())) from None


def _tuples(value: Any) -> Any:
    """TOML arrays become tuples, and whole numbers stay whole, as strict validation wants."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _explain(err: Any, where: str) -> str:
    name = ".".join(str(part) for part in err["loc"])
    if err["type"] == "extra_forbidden":
        section = Config.model_fields.get(str(err["loc"][0]))
        inner = section.annotation if section is not None and len(err["loc"]) > 1 else Config
        known = ", ".join(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else ""
        return f"{where}: unknown setting `{name}`; there are: {known}"
    return f"{where}: setting `{name}`: {err['msg']} (got {err['input']!r})"
