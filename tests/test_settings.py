"""Settings: one file and the environment, and no key that is silently ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from online_learner.errors import ConfigError
from online_learner.settings import Settings

WEB: dict[str, Any] = {"task": "classification", "learner": "examples.phishing:learner"}


def parse(web: dict[str, Any] | None = None, **document: Any) -> Settings:
    """Check a document with one model, `web`, with changes to it."""
    return Settings.parse({"models": {"web": WEB | (web or {})}} | document)


def refusal(web: dict[str, Any] | None = None, **document: Any) -> str:
    """Return the message with which a document is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(web, **document)
    return str(caught.value)


# --- the file ---------------------------------------------------------------------------------


def test_a_file_is_read_with_defaults_for_the_rest(tmp_path: Path) -> None:
    """Two lines a model are enough; everything else has a default."""
    file = tmp_path / "loop.yaml"
    file.write_text(yaml.safe_dump({"models": {"web": WEB}, "window_s": 60}))
    settings = Settings.load(file)
    assert settings.window_s == 60.0
    assert settings.store == "auto"
    assert settings.models["web"].audit == 0.1
    assert settings.models["web"].promotion.policy == "policies.promotion:Leash"
    assert settings == parse(window_s=60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping"),
        (b"- a\n- b\n", "must be a mapping"),
        (b"store", "must be a mapping"),
        (b"models: {", "cannot read"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"models: !!python/object:os.system {}", "cannot read"),
        (b"store: auto", "models: Field required"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """The message names the file, and what is wrong with it."""
    file = tmp_path / "loop.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        Settings.load(file)
    assert "loop.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is an error of the configuration, not a crash."""
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml"):
        Settings.load(tmp_path / "absent.yaml")


# --- unknown keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("web", "document", "place", "hint"),
    [
        ({}, {"stor": "auto"}, "stor", "store"),
        ({}, {"window": 60}, "window", "window_s"),
        ({}, {"datadir": "x"}, "datadir", "data_dir"),
        ({"auditt": 0.1}, {}, "models.web.auditt", "audit"),
        ({"lerner": "a:b"}, {}, "models.web.lerner", "learner"),
        ({"resources": {"num_gpu": 1}}, {}, "models.web.resources.num_gpu", "num_gpus"),
        ({}, {"gateways": {"max": 2, "mim": 1}}, "gateways.mim", "min"),
    ],
)
def test_an_unknown_key_is_refused_where_it_stands(
    web: dict[str, Any], document: dict[str, Any], place: str, hint: str
) -> None:
    """A typo is refused at every depth, with the closest known key."""
    message = refusal(web, **document)
    assert f"{place}: unknown key. Did you mean '{hint}'?" in message


def test_an_unknown_key_without_a_neighbour_lists_what_is_known() -> None:
    """Where nothing is close, all keys of the section are named."""
    message = refusal({"resources": {"zzz": 1}})
    assert "Known: custom, num_cpus, num_gpus." in message
    assert "Did you mean" not in message


def test_a_key_that_is_no_text_is_an_unknown_key() -> None:
    """YAML keys can be numbers; ours are not."""
    with pytest.raises(ConfigError, match="5: unknown key"):
        Settings.parse({"models": {"web": WEB}, 5: 3})  # type: ignore[dict-item]


def test_every_mistake_is_in_one_message() -> None:
    """Two mistakes are two clauses, so that nobody has to start twice."""
    message = refusal({"auditt": 1}, stor="auto")
    assert "stor:" in message
    assert "models.web.auditt:" in message


def test_arguments_of_the_policy_pass_through() -> None:
    """Beside `policy` stand its own arguments, which only it knows."""
    spec = parse({"promotion": {"policy": "my.policies:Bold", "alpha": 0.05, "every": 7}})
    promotion = spec.models["web"].promotion
    assert promotion.policy == "my.policies:Bold"
    assert promotion.arguments == {"alpha": 0.05, "every": 7}


# --- wrong values -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["long", "", None, [], {}, True, 0, -1, 1e10, float("nan")])
def test_the_window_is_a_positive_number_of_seconds(value: Any) -> None:
    """Neither `yes` nor infinity nor zero is a window."""
    assert refusal(window_s=value).startswith("configuration: window_s: ")


def test_an_endless_window_is_refused() -> None:
    """No receipt could be kept that long."""
    assert "window_s" in refusal(window_s=float("inf"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store", 5),
        ("profile", "slow"),
        ("on_store_down", "panic"),
        ("max_body_bytes", 10),
        ("max_body_bytes", True),
        ("gateways", 0),
        ("gateways", 1.5),
        ("gateways", {}),
        ("gateways", {"min": 3, "max": 2}),
        ("gateways", {"max": 0}),
        ("gateways", {"max": True}),
        ("gateways", {"max": 2, "target_ongoing_requests": 0}),
        ("models", None),
        ("models", []),
        ("models", {"web": "examples.phishing:learner"}),
        ("models", {"a b": WEB}),
        ("models", {"": WEB}),
        ("models", {"-web": WEB}),
        ("models", {"w{e}b": WEB}),
        ("models", {"w:b": WEB}),
        ("models", {"w" * 65: WEB}),
        ("models", {1: WEB}),
    ],
)
def test_a_wrong_value_is_refused_at_its_key(key: str, value: Any) -> None:
    """The message begins with the path of the key."""
    assert refusal(**{key: value}).startswith(f"configuration: {key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "clustering"),
        ("task", None),
        ("learner", 5),
        ("labels", []),
        ("labels", ["spam"]),
        ("labels", ["spam", "spam"]),
        ("labels", [True, "true"]),
        ("labels", [1, "1"]),
        ("labels", [1, True]),
        ("labels", [0, False]),
        ("labels", ["spam", None]),
        ("labels", ["spam", 1.5]),
        ("labels", "spam"),
        ("labels", {"spam": 1, "ham": 2}),
        ("audit", 1.1),
        ("audit", -0.1),
        ("audit", "often"),
        ("audit", True),
        ("audit", float("nan")),
        ("audit_deadline_s", 0),
        ("audit_deadline_s", float("inf")),
        ("publish_s", -1),
        ("publish_s", float("inf")),
        ("batch_max", 0),
        ("batch_max", 2.5),
        ("resources", {"num_gpus": -1}),
        ("resources", {"num_cpus": "many"}),
        ("resources", {"custom": {"rack": 0}}),
        ("resources", {"custom": ["rack"]}),
        ("resources", 1),
        ("promotion", "policies.promotion:Leash"),
        ("promotion", {"policy": 1}),
    ],
)
def test_a_wrong_value_of_a_model_is_refused_at_its_key(key: str, value: Any) -> None:
    """Types, bounds and label sets are checked before anything starts."""
    assert refusal({key: value}).startswith(f"configuration: models.web.{key}")


@pytest.mark.parametrize("key", ["task", "learner"])
def test_what_has_no_default_is_required(key: str) -> None:
    """A model has to say its task and its learner."""
    document = {"models": {"web": {k: v for k, v in WEB.items() if k != key}}}
    with pytest.raises(ConfigError, match=rf"models\.web.*`?{key}`?.*(Field required|is missing)"):
        Settings.parse(document)


@pytest.mark.parametrize(
    "labels", [None, ["ham", "spam"], [False, True], [0, 1], [1, 2, 3], ["true", "false"]]
)
def test_labels_keep_their_types(labels: Any) -> None:
    """Booleans stay booleans, numbers numbers, text text."""
    assert repr(parse({"labels": labels}).models["web"].labels) == repr(labels)


# --- the environment --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("OL_STORE", "redis://other:6379", "store", "redis://other:6379"),
        ("OL_WINDOW_S", "120", "window_s", 120.0),
        ("OL_DATA_DIR", "elsewhere", "data_dir", Path("elsewhere")),
        ("OL_PROFILE", "plain", "profile", "plain"),
        ("OL_MAX_BODY_BYTES", "2048", "max_body_bytes", 2048),
        ("ol_window_s", "120", "window_s", 120.0),
    ],
)
def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, key: str, value: Any
) -> None:
    """`OL_*` is stronger than what the file says."""
    monkeypatch.setenv(variable, text)
    settings = parse(store="auto", window_s=60, data_dir="here", profile="fast")
    assert getattr(settings, key) == value


def test_models_of_the_environment_join_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OL_MODELS` is JSON, and wins key by key."""
    monkeypatch.setenv("OL_MODELS", '{"web": {"audit": 0.5}}')
    spec = parse({"batch_max": 7}).models["web"]
    assert (spec.audit, spec.batch_max) == (0.5, 7)


@pytest.mark.parametrize(
    ("variable", "text"), [("OL_WINDOW_S", "soon"), ("OL_MODELS", "{"), ("OL_GATEWAYS", "0")]
)
def test_a_wrong_variable_is_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    """It is refused like a wrong value in the file, by name."""
    monkeypatch.setenv(variable, text)
    assert variable.removeprefix("OL_").lower() in refusal()


def test_other_variables_of_ours_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret and the API key share the prefix, and are not in the settings."""
    monkeypatch.setenv("OL_SECRET", "1:00")
    monkeypatch.setenv("OL_API_KEY", "hunter2")
    assert "hunter2" not in repr(parse())


@pytest.mark.parametrize("variable", ["OL_STORE", "REDIS_URL", "OL_WINDOW_S"])
def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Compose files and charts set what they do not have to the empty text."""
    monkeypatch.setenv(variable, "")
    assert parse() == parse(store="auto", window_s=86400)


@pytest.mark.parametrize(
    ("file", "ol_store", "redis_url", "store"),
    [
        (None, None, None, "auto"),
        (None, None, "redis://r", "redis://r"),
        ("auto", None, "redis://r", "redis://r"),
        ("redis://f", None, "redis://r", "redis://f"),
        ("redis://f", "redis://o", "redis://r", "redis://o"),
        (None, "redis://o", "redis://r", "redis://o"),
        (None, "auto", "redis://r", "auto"),
    ],
)
def test_where_the_store_comes_from(
    monkeypatch: pytest.MonkeyPatch,
    file: str | None,
    ol_store: str | None,
    redis_url: str | None,
    store: str,
) -> None:
    """`OL_STORE`, else the file's URL, else `REDIS_URL`, else the bundled server."""
    for name, value in (("OL_STORE", ol_store), ("REDIS_URL", redis_url)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert parse(**({} if file is None else {"store": file})).store == store


# --- use --------------------------------------------------------------------------------------


def test_settings_do_not_change() -> None:
    """What was checked stays as it was checked."""
    settings = parse()
    with pytest.raises(ValueError, match="frozen"):
        settings.window_s = 1.0  # type: ignore[misc]


def test_an_unknown_model_gets_a_hint() -> None:
    """Asking for a model that is not configured names the closest one."""
    assert parse().model("web").task == "classification"
    with pytest.raises(ConfigError, match=r"no model 'wep'.* Did you mean 'web'"):
        parse().model("wep")


def test_other_processes_find_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`absolute` pins the directory to where it was meant."""
    monkeypatch.chdir(tmp_path)
    assert parse().absolute().data_dir == tmp_path.resolve() / ".online_learner"


def test_settings_survive_json() -> None:
    """A configuration can be written to the store and read back."""
    settings = parse({"labels": [False, True], "promotion": {"alpha": 0.05}}, window_s=60)
    assert Settings.parse(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("s3://KEY:hunter2@bucket/log", "credentials"),
        ("s3://KEY:hun/ter2@bucket/log", "credentials"),
        ("ftp://hunter2/log", "no URL of a place for files"),
        ("s3://", "no URL of a place for files"),
        ("", "is empty"),
    ],
)
def test_an_archive_is_at_a_place_for_files(where: str, why: str) -> None:
    """It is told before anything starts, and without what was written."""
    with pytest.raises(ConfigError, match=why) as told:
        Settings.parse({"models": {"web": {"task": "generation", "archive": where}}}, name="x")
    assert "hunter" not in str(told.value)
    assert "archive" in str(told.value)


def test_an_archive_is_where_every_process_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is relative to where the configuration is read, and not to each worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/srv/ada")
    for where, found in {
        "log": f"{tmp_path}/log",
        "~/log": "/srv/ada/log",
        "s3://bucket/log?region=eu-west-1": "s3://bucket/log?region=eu-west-1",
        "auto": "auto",
        None: None,
    }.items():
        spec = {"task": "generation", "archive": where}
        settings = Settings.parse({"models": {"web": spec}}, name="x")
        assert settings.models["web"].archive == found
