"""One YAML file and the environment, checked before anything starts.

`OL_STORE`, `OL_DATA_DIR`, `OL_WINDOW_S`, ... win over the file. Every unknown key is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from online_learner.errors import ConfigError, did_you_mean, known_fields
from online_learner.secret import STORE_VARIABLES, from_environment, shown
from online_learner.settings.model import ModelSpec
from online_learner.settings.parts import (
    BETWEEN,
    FIXED,
    CorsSpec,
    ExplorationSpec,
    FactorySpec,
    GatewaysSpec,
    GuardsSpec,
    LimitsSpec,
    ObserveSpec,
    PromotionSpec,
    RateSpec,
    ResourcesSpec,
    RetrainSpec,
    gateways_kind,
)

__all__ = [
    "CorsSpec",
    "ExplorationSpec",
    "FactorySpec",
    "GatewaysSpec",
    "GuardsSpec",
    "LimitsSpec",
    "ModelSpec",
    "ObserveSpec",
    "PromotionSpec",
    "RateSpec",
    "ResourcesSpec",
    "RetrainSpec",
    "Settings",
]


def _without_password(store: str) -> str:
    """Return a store's URL as it may be written down; only the environment may give a password."""
    url = shown(store)
    if url != store and store not in map(from_environment, STORE_VARIABLES):
        raise ValueError(
            "a password does not belong here: give the whole URL in OL_STORE or REDIS_URL, or in a "
            "file that OL_STORE_FILE or REDIS_URL_FILE names"
        )
    return url


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="OL_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    store: Annotated[str, AfterValidator(_without_password)] = "auto"
    data_dir: Path = Path(".online_learner")
    profile: Literal["fast", "plain"] = "fast"
    window_s: Annotated[float, Field(gt=0, le=1e9)] = 86_400.0
    on_store_down: Literal["refuse", "answer_unlogged"] = "refuse"
    logs: Literal["text", "json"] = "text"
    access_log: bool = False  # a line for each request
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1 << 20
    max_version_bytes: Annotated[int, Field(ge=1024)] = 64 << 20  # of a file that is registered
    body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10.0  # for all of a body to arrive
    gateways: Annotated[
        Annotated[int, Field(ge=1), Tag(FIXED)] | Annotated[GatewaysSpec, Tag(BETWEEN)],
        Discriminator(gateways_kind),
    ] = 1
    cors: CorsSpec = CorsSpec()
    maxmemory_bytes: Annotated[int, Field(ge=64 << 20)] | None = None  # of the bundled store
    models: dict[Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")], ModelSpec]

    @field_validator(
        "window_s",
        "max_body_bytes",
        "max_version_bytes",
        "body_timeout_s",
        "gateways",
        mode="before",
    )
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):  # YAML reads `yes` as true, and pydantic reads true as 1
            raise ValueError("must be a number")  # noqa: TRY004
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings

    @classmethod
    def load(cls, file: Path | str) -> Settings:
        """Read a YAML file; the environment wins over it.

        Raises
        ------
        ConfigError
            The file cannot be read, or a key or value in it is wrong; says which and what to do.
        """
        try:
            document = yaml.safe_load(Path(file).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration {file}: {_reason(error)}") from None
        if not isinstance(document, dict):
            raise ConfigError(
                f"{file} must be a mapping of settings, not {type(document).__name__}"
            )
        return cls.parse(document, name=str(file))

    @classmethod
    def parse(cls, document: dict[str, Any], *, name: str = "configuration") -> Settings:
        """Check a document that has been read already; the environment wins over it."""
        document = {str(key): value for key, value in document.items()}
        url = from_environment("OL_STORE")
        if url is None and document.get("store", "auto") == "auto":
            url = from_environment("REDIS_URL")
        if url is not None:
            document["store"] = url
        try:
            return cls(**document)
        except ValidationError as error:
            raise ConfigError(f"{name}: {_explain(error)}") from None
        except SettingsError as error:  # OL_MODELS is not JSON
            raise ConfigError(f"environment: {error}: {error.__cause__}") from error

    def absolute(self) -> Settings:
        """Return the settings with `data_dir` made absolute, so that other processes find it."""
        return self.model_copy(update={"data_dir": self.data_dir.resolve()})

    def model(self, name: str) -> ModelSpec:
        """Return one model's part; `ConfigError` names the models that there are."""
        if name not in self.models:
            raise ConfigError(
                f"no model '{name}' in the configuration.{did_you_mean(name, self.models)}"
            )
        return self.models[name]


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, without the line of it that YAML would repeat."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return getattr(error, "strerror", None) or "it is not text"
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"


def _explain(error: ValidationError) -> str:
    lines = []
    for found in error.errors(include_url=False):
        place = ".".join(str(part) for part in found["loc"] if part not in (FIXED, BETWEEN))
        message = found["msg"]
        if found["type"] == "extra_forbidden":
            key = str(found["loc"][-1])
            known = known_fields(_section(found["loc"]), ())
            message = f"unknown key.{did_you_mean(key, known)} Known: {', '.join(known)}."
        lines.append(f"{place}: {message}")
    return "; ".join(lines)


def _section(path: tuple[int | str, ...]) -> type[BaseModel]:
    if path[0] == "gateways" and len(path) > 1:
        return GatewaysSpec
    if path[:1] != ("models",) or len(path) < 3:
        return Settings
    parts: dict[str, type[BaseModel]] = {
        "limits": LimitsSpec,
        "resources": ResourcesSpec,
        "exploration": ExplorationSpec,
        "guards": GuardsSpec,
        "observe": ObserveSpec,
        "retrain": RetrainSpec,
    }
    return parts.get(str(path[2]) if len(path) > 3 else "", ModelSpec)
