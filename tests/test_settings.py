"""Settings: which source wins, where a value came from, and what is said when one is wrong."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from learners.base import EngineConfig
from learners.errors import SettingsError
from streams.settings import ROLES, Settings, describe, example_toml, load_settings
from streams.settings.texts import ENGINE_BOUNDS, ENGINE_MEANINGS


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("EVERLEARN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "everlearn.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_beats_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    write('port = 1\nhost = "0.0.0.0"\nnode_name = "a"\n[engine]\nusers = 10\nitems = 20\n')
    monkeypatch.setenv("EVERLEARN_PORT", "2")
    monkeypatch.setenv("EVERLEARN_HOST", "127.0.0.2")
    monkeypatch.setenv("EVERLEARN_ENGINE__ITEMS", "30")
    settings = load_settings(port=3, token=None)
    assert (settings.port, settings.host, settings.node_name) == (3, "127.0.0.2", "a")
    assert (settings.engine.users, settings.engine.items, settings.engine.seed) == (10, 30, 1)
    origins = settings.origins()
    assert origins["port"] == "flag"
    assert origins["host"] == "EVERLEARN_HOST"
    assert origins["node_name"] == origins["engine.users"] == "everlearn.toml"
    assert origins["engine.items"] == "EVERLEARN_ENGINE__ITEMS"
    assert origins["engine.seed"] == origins["broker"] == "default"


def test_a_named_file_wins_over_the_one_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    write("port = 1")
    write("port = 2", "other.toml")
    assert load_settings("other.toml").port == 2
    monkeypatch.setenv("EVERLEARN_SETTINGS", "other.toml")
    assert load_settings().port == 2
    assert load_settings("everlearn.toml").port == 1


def test_the_constructor_reads_neither_file_nor_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("port = 1")
    monkeypatch.setenv("EVERLEARN_PORT", "2")
    assert Settings().port == 8080


def test_roles_keep_their_defaults_where_a_file_says_nothing() -> None:
    write('[topics.clicks]\nname = "shop.views"\npartitions = 12\n')
    settings = load_settings()
    clicks = settings.topics["clicks"]
    assert (clicks.name, clicks.type, clicks.partitions) == ("shop.views", "click", 12)
    assert set(settings.event_topics()) == {
        "shop.views",
        "everlearn.purchases",
        "everlearn.impressions",
        "everlearn.items",
        "everlearn.erasures",
    }
    assert settings.topics["items"].compacted
    assert settings.topics["dead_letters"].name == "everlearn.dead-letters"


def test_a_topic_of_ones_own_is_read_with_its_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        '[topics.shop]\nname = "shop.log"\ntype = "mixed"\ntimestamp_unit = "ms"\n'
        'fields = { user = "who.id", type = "kind" }\ntypes = { view = "click" }\n'
    )
    monkeypatch.setenv("EVERLEARN_TOPICS__SHOP__PARTITIONS", "2")
    shop = load_settings().event_topics()["shop.log"]
    assert shop.mapped
    assert shop.partitions == 2
    assert shop.fields == {"user": "who.id", "type": "kind"}
    assert not load_settings().topics["clicks"].mapped


def test_environment_gives_lists_and_tables_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_ENGINE__TRANSITION_HALF_LIVES_SECONDS", "[10, 20]")
    monkeypatch.setenv("EVERLEARN_TOPICS__CLICKS__FIELDS", '{"user": "uid"}')
    settings = load_settings()
    assert settings.engine.transition_half_lives_seconds == (10.0, 20.0)
    assert settings.topics["clicks"].fields == {"user": "uid"}


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_TOKEN", "")
    monkeypatch.setenv("EVERLEARN_NO_SUCH", "")
    assert load_settings().token is None


def test_what_kubernetes_adds_for_a_service_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("EVERLEARN_PORT_8080_TCP_ADDR", "10.0.0.1")
    load_settings()
    monkeypatch.setenv("EVERLEARN_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(SettingsError, match=r"port = 'tcp://10.0.0.1:8080' \(EVERLEARN_PORT\)"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("prot = 1", ["prot (everlearn.toml)", "did you mean port?"]),
        ("[engine]\nseeed = 1", ["engine.seeed", "did you mean seed?"]),
        ("[security]\nprotcol = 'SSL'", ["security.protcol", "did you mean protocol?"]),
        ("[topics.clicks]\nnam = 'a'", ["topics.clicks.nam", "did you mean name?"]),
        ("[topics.click]\nname = 'a'", ["click", "did you mean clicks?"]),
        ("[enigne]\nseed = 1", ["enigne", "did you mean engine?"]),
        ("zzzzzz = 1", ["zzzzzz", "`everlearn settings` lists them all"]),
        ("port = 70000", ["port = 70000 (everlearn.toml)", "65535"]),
        ("port = 'x'", ["port = 'x'", "integer"]),
        ("checkpoint_keep = 0", ["checkpoint_keep = 0", "greater than or equal to 1"]),
        ("checkpoint_seconds = nan", ["checkpoint_seconds = nan"]),
        ("broker = 'kafka'", ["broker", "'kafka' is no host:port"]),
        ("broker = 'kafka:99999'", ["'kafka:99999' is no host:port"]),
        ("[engine]\nusers = 0", ["users = 0", "(everlearn.toml)", "give 1 to 100000000"]),
        ("[engine]\nusers = 'x'", ["engine.users = 'x'", "integer"]),
        (
            "[engine]\ntransition_half_lives_seconds = [1, -5]",
            ["transition_half_lives_seconds = (1.0, -5.0)", "give 1 to"],
        ),
        ("[security]\nprotocol = 'SASL_SSL'", ["lacks sasl_mechanism, sasl_username"]),
        ("[security]\nca_file = '/no/such'", ["'/no/such' is not a file"]),
        ("[topics.clicks]\nname = 'a b'", ["topics.clicks.name = 'a b'", "letters, digits"]),
        ("[topics.clicks]\nname = 'everlearn.items'", ["items", "clicks", "name two topics"]),
        ("[topics.clicks]\nretention_days = 0", ["retention_days = 0", "-1 to keep"]),
        ("[topics.clicks]\ntype = 'clik'", ["topics.clicks.type = 'clik'", "'click'"]),
        ("[topics.clicks]\nfields = { usr = 'a' }", ["fields.usr", "did you mean user?"]),
        ("[topics.clicks]\nfields = { user = 'a..b' }", ["fields.user = 'a..b' is no path"]),
        ("[topics.clicks]\ntypes = { view = 'click' }", ["types", "mixed"]),
        ("[topics.dead_letters]\ntype = 'click'", ["dead_letters carries no events"]),
        ("[topics.x]\nname = 'x'", ["x says not what it carries", "set its type"]),
        (
            "[topics.x]\nname = 'x'\ntype = 'mixed'\ntypes = { view = 'clik' }",
            ["types.view = 'clik'", "did you mean click?"],
        ),
        ("port 1", ["everlearn.toml is not TOML"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_cure(text: str, parts: list[str]) -> None:
    write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for part in parts:
        assert part in str(caught.value)


def test_wrong_variables_flags_and_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"'absent.toml' cannot be read: No such file"):
        load_settings("absent.toml")
    with pytest.raises(SettingsError, match=r"prot \(flag\) is no setting; did you mean port"):
        load_settings(prot=1)
    monkeypatch.setenv("EVERLEARN_BROKRE", "a:1")
    with pytest.raises(SettingsError, match="EVERLEARN_BROKRE is no setting; did you mean EVER"):
        load_settings()


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[security]\nsasl_password = 'pass-word-1'\nprotocol = 'SASL_SSL'\n")
    monkeypatch.setenv("EVERLEARN_TOKEN", "very-secret-token")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "pass-word-1" not in str(caught.value)
    settings = load_settings(
        security={"sasl_mechanism": "PLAIN", "sasl_username": "u"}, broker="a:1"
    )
    shown = f"{settings} {settings!r} {describe(settings)} {settings.model_dump_json()}"
    assert "pass-word-1" not in shown
    assert "very-secret-token" not in shown
    assert settings.token is not None
    assert settings.token.get_secret_value() == "very-secret-token"
    monkeypatch.setenv("EVERLEARN_TOKEN", "short")
    with pytest.raises(SettingsError, match="8 to 512 visible") as refused:
        load_settings()
    assert "short" not in str(refused.value)


def test_every_setting_is_described() -> None:
    rows = describe(Settings())
    assert all(row.meaning for row in rows)
    assert {row.name for row in rows} >= {"broker", "engine.seed", "topics.items.compacted"}
    names = {field.name for field in fields(EngineConfig)}
    assert names == set(ENGINE_MEANINGS) == set(ENGINE_BOUNDS)


def test_the_example_file_is_complete_and_says_the_defaults() -> None:
    text = example_toml()
    assert load_settings(write(text)).model_dump() == Settings().model_dump()
    uncommented = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    certificates = write("", "ca.pem").name
    uncommented = re.sub(r"(?m)^ca_file = .*", f'ca_file = "{certificates}"', uncommented)
    settings = load_settings(write(uncommented))
    assert settings.engine == EngineConfig()
    assert settings.topics["shop"].fields["item"] == "product.sku"
    written = tomllib.loads(uncommented)
    assert set(written) == set(Settings.model_fields)
    assert set(written["engine"]) == set(ENGINE_MEANINGS)
    assert set(written["topics"]) == {*ROLES, "shop"}
