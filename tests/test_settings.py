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


@pytest.mark.parametrize("name", ["TOKEN", "BROKER", "STATE_DIR", "NODE_NAME", "ENGINE__SEED"])
def test_an_empty_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A command that should have made a token and failed must not open the node to anybody."""
    monkeypatch.setenv(f"EVERLEARN_{name}", "")
    with pytest.raises(SettingsError, match=f"EVERLEARN_{name} is empty: give it a value, or unse"):
        load_settings(broker="kafka:9092")


def test_what_kubernetes_adds_for_a_service_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("EVERLEARN_PORT_8080_TCP_ADDR", "10.0.0.1")
    load_settings()
    monkeypatch.setenv("EVERLEARN_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(SettingsError, match=r'port = "tcp://10.0.0.1:8080" \(EVERLEARN_PORT\)'):
        load_settings()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("prot = 1", ["prot (everlearn.toml)", "did you mean port?"]),
        ("[engine]\nseeed = 1", ["engine.seeed (everlearn.toml)", "did you mean engine.seed?"]),
        ("[security]\nprotcol = 'SSL'", ["security.protcol", "did you mean security.protocol?"]),
        ("[topics.clicks]\nnam = 'a'", ["topics.clicks.nam", "did you mean topics.clicks.name?"]),
        ("[topics.click]\nname = 'a'", ["click", "did you mean clicks?"]),
        ("[enigne]\nseed = 1", ["enigne.seed", "did you mean engine.seed?"]),
        ("zzzzzz = 1", ["zzzzzz", "`everlearn settings` lists them all"]),
        ("port = 70000", ["port = 70000 (everlearn.toml) must be 65,535 or less"]),
        ("port = 'x'", ['port = "x" (everlearn.toml) must be a whole number; mend it']),
        ("port = true", ["port = true (everlearn.toml): a number is meant"]),
        ("checkpoint_seconds = true", ["checkpoint_seconds = true", "a number is meant"]),
        ("accept_loss = 'perhaps'", ['accept_loss = "perhaps"', "must be true or false"]),
        ("node_name = 'a b'", ['node_name = "a b"', "letters, digits, dots"]),
        ("state_dir = 5", ["state_dir = 5", "must be a path, as text"]),
        ("seed = 1", ["seed (everlearn.toml) is no setting", "did you mean engine.seed?"]),
        ("engine = 5", ["engine = 5 (everlearn.toml) must be a table of settings"]),
        ("[engine]\nseed = true", ["seed = true: a number is meant"]),
        ("[engine]\nusers = 1e300", ["users = 1e+300 (everlearn.toml) must be a whole number"]),
        ("checkpoint_keep = 0", ["checkpoint_keep = 0", "must be 1 or more"]),
        ("checkpoint_seconds = nan", ["checkpoint_seconds = NaN"]),
        ("broker = 'kafka'", ["broker", "'kafka' is no host:port"]),
        ("broker = 'kafka:99999'", ["'kafka:99999' is no host:port"]),
        ("[engine]\nusers = 0", ["users = 0", "(everlearn.toml)", "give 1 to 100000000"]),
        ("[engine]\nusers = 'x'", ['engine.users = "x"', "must be a whole number"]),
        (
            "[engine]\ntransition_half_lives_seconds = [1, -5]",
            ["transition_half_lives_seconds = (1.0, -5.0)", "give 1 to"],
        ),
        (
            "[engine]\ntransition_half_lives_seconds = [10]",
            ["engine.transition_half_lives_seconds = [10] (everlearn.toml)", "a list of 2 numbers"],
        ),
        (
            "[engine]\npopularity_half_lives_seconds = 10",
            ["popularity_half_lives_seconds = 10 (everlearn.toml)", "such as [3600.0, 21600.0,"],
        ),
        ("[topics.clicks]\npartitions = false", ["topics.clicks.partitions = false"]),
        (
            "[topics.clicks]\nfields = { user = 5 }",
            ["topics.clicks.fields.user = 5", "must be text"],
        ),
        ("[security]\nprotocol = 'SASL_SSL'", ["lacks sasl_mechanism, sasl_username"]),
        ("[security]\nca_file = '/no/such'", ["'/no/such' is not a file"]),
        ("[topics.clicks]\nname = 'a b'", ['topics.clicks.name = "a b"', "letters, digits"]),
        ("[topics.clicks]\nname = 'everlearn.items'", ["items", "clicks", "name two topics"]),
        ("[topics.clicks]\nretention_days = 0", ["retention_days = 0", "-1 to keep"]),
        (
            "[topics.clicks]\ntype = 'clik'",
            ['topics.clicks.type = "clik"', "must be 'click', 'purchase'"],
        ),
        ("[topics.clicks]\nfields = { usr = 'a' }", ["fields.usr", "did you mean user?"]),
        ("[topics.clicks]\nfields = { user = 'a..b' }", ["fields.user = 'a..b' is no path"]),
        ("[topics.clicks]\ntypes = { view = 'click' }", ["types", "mixed"]),
        ("[topics.dead_letters]\ntype = 'click'", ["dead_letters carries no events"]),
        ("[topics.x]\ntype = 'click'", ["topics.x.name (everlearn.toml) is missing: set it"]),
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
    assert len(str(caught.value).splitlines()) == 1
    assert "Input" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        (
            "ENGINE_SEED",
            "1",
            "EVERLEARN_ENGINE_SEED is no setting; did you mean EVERLEARN_ENGINE__SE",
        ),
        ("ENGINE__SEDE", "1", "is no setting; did you mean EVERLEARN_ENGINE__SEED?"),
        ("SEED", "1", "did you mean EVERLEARN_ENGINE__SEED?"),
        ("SECURITY_PROTOCOL", "SSL", "did you mean EVERLEARN_SECURITY__PROTOCOL?"),
        ("TOPICS_CLICKS_NAME", "a", "did you mean EVERLEARN_TOPICS__CLICKS__NAME?"),
        ("TOPICS__CLICKS_NAME", "a", "did you mean EVERLEARN_TOPICS__CLICKS__NAME?"),
        ("TOPICS__SHOP__NAM", "a", "did you mean EVERLEARN_TOPICS__SHOP__NAME?"),
        ("PORT__X", "1", "EVERLEARN_PORT__X is no setting; did you mean EVERLEARN_PORT?"),
        ("NO_SUCH_THING", "1", "is no setting; `everlearn settings` lists them all"),
        ("ENGINE__SEED", "x", 'engine.seed = "x" (EVERLEARN_ENGINE__SEED) must be a whole number'),
        ("ENGINE", '{"seed": "x"}', 'engine.seed = "x" (EVERLEARN_ENGINE) must be a whole'),
        ("ENGINE", '{"seed": 1', 'EVERLEARN_ENGINE = "{\\"seed\\": 1" is not JSON: write a table'),
        (
            "ENGINE__TRANSITION_HALF_LIVES_SECONDS",
            "10,20",
            'EVERLEARN_ENGINE__TRANSITION_HALF_LIVES_SECONDS = "10,20" is not JSON: write',
        ),
        (
            "ENGINE__TRANSITION_HALF_LIVES_SECONDS",
            "[10]",
            "= [10] (EVERLEARN_ENGINE__TRANSITION_HALF_LIVES_SECONDS) must be a list of 2 numbers",
        ),
        ("TOPICS__CLICKS__FIELDS", "user", 'EVERLEARN_TOPICS__CLICKS__FIELDS = "user" is not JSON'),
        (
            "CHECKPOINT_SECONDS",
            "nan",
            'checkpoint_seconds = "nan" (EVERLEARN_CHECKPOINT_SECONDS): a finite number',
        ),
        ("HOST", "999.1.1.1", "(EVERLEARN_HOST): '999.1.1.1' is no address: give one such as"),
        ("PORT", "true", 'port = "true" (EVERLEARN_PORT) must be a whole number'),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_cure(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, told: str
) -> None:
    monkeypatch.setenv(f"EVERLEARN_{variable}", text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert told in str(caught.value)


def test_a_table_and_a_part_of_it_may_both_be_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_ENGINE", '{"seed": 2, "items": 3}')
    monkeypatch.setenv("EVERLEARN_ENGINE__SEED", "4")
    settings = load_settings()
    assert (settings.engine.seed, settings.engine.items) == (4, 3)
    assert settings.origins()["engine.seed"] == "EVERLEARN_ENGINE__SEED"
    assert settings.origins()["engine.items"] == "EVERLEARN_ENGINE"


def test_a_token_that_looks_like_json_is_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_TOKEN", "[1,2,3,4,5]")
    token = load_settings().token
    assert token is not None
    assert token.get_secret_value() == "[1,2,3,4,5]"


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
    monkeypatch.setenv("EVERLEARN_SECURITY", '{"sasl_password": "pass-word-1"')
    with pytest.raises(SettingsError, match="EVERLEARN_SECURITY is not JSON") as unread:
        load_settings()
    assert "pass-word-1" not in str(unread.value)
    monkeypatch.delenv("EVERLEARN_SECURITY")
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
