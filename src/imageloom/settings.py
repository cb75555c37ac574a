"""Every setting of the server, read once from the environment and the command line.

The only module that reads environment variables. Main functions build one `Settings` and pass it
(or single values of it) down; nothing reads it at import time.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from imageloom.domain.catalog import Kind
from imageloom.domain.drill import Drill
from imageloom.domain.speed import Compile, Dtype, Speed


class Limits(BaseSettings):
    """Upper bounds on what a request may ask for; an operator can lower every one of them."""

    model_config = SettingsConfigDict(env_prefix="IMAGELOOM_MAX_", frozen=True)

    steps: int = Field(100, ge=1, le=100)
    outputs: int = Field(16, ge=1, le=16)
    side: int = Field(2048, ge=64, le=2048, description="pixels")
    guidance: float = Field(30.0, ge=0, le=30)
    prompt: int = Field(4000, ge=1, le=4000, description="characters")
    work: int = Field(
        2_000_000_000,
        ge=1,
        description="outputs x steps x pixels of one task: 2e9 is 16 pictures of 1024 x 1024 at "
        "119 steps, or 4 of 2048 x 2048 at 119",
    )
    body: int = Field(
        4_000_000,
        ge=1_000,
        description="bytes of a JSON body: a run may start from 10,000 pictures, each with its URL",
    )
    upload: int = Field(2_000_000_000, ge=1_000, description="bytes of one uploaded file")
    dataset: int = Field(500_000_000, ge=1_000, description="bytes of a data set's archive")
    fetch: int = Field(25_000_000, ge=1_000, description="bytes of one fetched picture")
    pixels: int = Field(64_000_000, ge=4096, description="pixels of one input picture")
    output_pixels: int = Field(
        100_000_000, ge=4096, description="pixels of one picture that processing makes"
    )
    run_tasks: int = Field(
        10_000, ge=1, le=10_000, description="tasks, and pictures, of one run of a workflow"
    )


class Settings(BaseSettings):
    """Where things are and how long they may take. Seconds and bytes throughout."""

    model_config = SettingsConfigDict(
        env_prefix="IMAGELOOM_", frozen=True, populate_by_name=True, extra="ignore"
    )

    data_dir: Path = Path("imageloom-data")
    database_url: str | None = Field(
        None, validation_alias=AliasChoices("database_url", "DATABASE_URL")
    )
    storage_url: str | None = Field(None, description="s3://, gs://, az:// or file://")
    public_url: str | None = Field(None, description="what URLs in answers begin with")
    api_key: str | None = Field(None, description="the first tenant's key, instead of a made one")
    host: str = "127.0.0.1"
    port: int = Field(9000, ge=0, le=65535)
    default_model: str = "imageloom-tiny"
    default_upscaler: str = "lanczos"
    default_segmenter: str = "grabcut"
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host:port pairs that may be fetched although their address is private"
    )
    pg_bin: Path | None = Field(None, description="folder of initdb and postgres")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?|drill)$")
    device_threads: int = Field(
        1, ge=1, description="torch threads on a CPU; 2 can be ten times slower on shared cores"
    )
    device_tasks: int = Field(
        8, ge=1, le=64, description="generations that share a worker's device, step by step"
    )
    training_share: float = Field(
        0.1, ge=0, le=0.9, description="of a device that is never idle, what a training gets"
    )
    dtype: Dtype = Field("auto", description="of weights: bfloat16 on a GPU, float32 on a CPU")
    channels_last: bool = Field(True, description="the memory format of UNets")
    fused_projections: bool = Field(
        False, description="queries, keys and values in one product, in passes without adapters"
    )
    compile: Compile = Field(
        "off", description="networks by torch.compile, in passes without adapters"
    )
    kept_prompts: int = Field(
        64, ge=1, le=10_000, description="prompts whose embeddings a model keeps on the device"
    )
    worker_models: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="the models that a worker may serve, separated by commas; else any"
    )
    worker_memory: int | None = Field(
        None, ge=1, description="bytes of a worker's device to count with, instead of all of it"
    )
    drill_step: float = Field(0.0, ge=0, description="seconds of a step of the device `drill`")
    drill_ledger: Path | None = Field(None, description="where the device `drill` writes its runs")
    heartbeat_interval: float = Field(1.0, gt=0)
    lease_seconds: float = Field(
        8.0, gt=0, description="silence after which a worker's tasks are taken back"
    )
    device_silence: float = Field(
        10.0, gt=0, description="time without a sign of life after which a device is unhealthy"
    )
    device_patience: float = Field(
        300.0, gt=0, description="time for which a device may be unhealthy before it is ended"
    )
    reap_interval: float = Field(1.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    url_ttl: int = Field(7 * 24 * 3600, ge=1, description="life of a signed output URL")
    file_ttl: int = Field(7 * 24 * 3600, ge=1, description="life of an uploaded file")
    keep_tasks: float | None = Field(
        None,
        gt=0,
        description="days after which a task or a run that is over is deleted with its outputs",
    )
    webhook_secret: SecretStr | None = Field(
        None, description="whsec_ and base64: what the first tenant's webhooks are signed with"
    )
    webhook_rate: int = Field(
        10, ge=1, le=1000, description="webhook deliveries that one endpoint gets in a second"
    )
    webhook_delay_factor: float = Field(
        1.0, ge=0, description="what the delays between tries of a webhook are multiplied by"
    )
    fetch_timeout: float = Field(30.0, gt=0, description="total time for one fetched URL")
    drain_timeout: float = Field(10.0, gt=0, description="time for a worker to hand tasks back")
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="an OpenTelemetry collector that takes OTLP over HTTP; without one, no traces",
    )
    otlp_traces_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("otlp_traces_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="the same with the whole path, for traces alone",
    )
    api_db_password: SecretStr | None = Field(
        None, description="for `migrate --roles`: the password that imageloom_api is to have"
    )
    worker_db_password: SecretStr | None = Field(
        None, description="for `migrate --roles`: the password that imageloom_worker is to have"
    )
    supervised: bool = Field(False, description="set by `serve` for its children")
    listen_fd: int | None = Field(None, description="set by `serve` for the API: its socket")
    log_format: str = Field("auto", pattern="^(auto|json|text)$")
    limits: Limits = Field(default_factory=Limits)

    @property
    def speed(self) -> Speed:
        """What the device process is told of bits, memory and speed."""
        return Speed(
            dtype=self.dtype,
            channels_last=self.channels_last,
            fused_projections=self.fused_projections,
            compile=self.compile,
            kept_prompts=self.kept_prompts,
        )

    @property
    def drill(self) -> Drill:
        """What the device process is told where it only plays a device."""
        ledger = None if self.drill_ledger is None else str(self.drill_ledger.absolute())
        return Drill(step_seconds=self.drill_step, ledger=ledger)

    @property
    def default_models(self) -> dict[Kind, str]:
        """The model that a request gets unless it names one, by what it is for."""
        return {
            "base": self.default_model,
            "upscaler": self.default_upscaler,
            "segmenter": self.default_segmenter,
        }

    @property
    def traces_endpoint(self) -> str | None:
        """Where traces go, None where they are not made."""
        if self.otlp_traces_endpoint:
            return self.otlp_traces_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/traces" if self.otlp_endpoint else None

    @property
    def webhook_key(self) -> bytes | None:
        """The bytes of `webhook_secret`."""
        return _decoded(self.webhook_secret)

    @field_validator("webhook_secret")
    @classmethod
    def _decodes(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            key = _decoded(value)
        except ValueError:
            key = b""
        if key is not None and not 24 <= len(key) <= 64:
            raise ValueError(
                "it must be whsec_ and the base64 of 24 to 64 random bytes, such as "
                "`imageloom webhooks rotate` prints"
            )
        return value

    @field_validator("otlp_endpoint", "otlp_traces_endpoint")
    @classmethod
    def _is_web_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(
                f"{value[:80]!r} must begin with http:// or https://; gRPC is not spoken"
            )
        return value

    @field_validator("fetch_allow", "worker_models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def _decoded(secret: SecretStr | None) -> bytes | None:
    """Return the bytes of a secret as Standard Webhooks writes it. Raises: ValueError."""
    if secret is None:
        return None
    text = secret.get_secret_value().removeprefix("whsec_")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
