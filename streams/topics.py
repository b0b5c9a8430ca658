"""The topics of the settings: made where missing, compared where they exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from learners.errors import BrokerError, TopicError
from streams.broker import broker_apis, is_embedded
from streams.security import confluent_options, kafka_python_options

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from kafka.admin import KafkaAdminClient

    from streams.settings import Settings, TopicSettings

__all__ = [
    "Difference",
    "TopicReport",
    "check_broker",
    "connect_admin",
    "create_topics",
    "first_offsets",
    "list_topics",
]

State = Literal["created", "as set", "differs", "theirs", "missing", "on first use"]

DAY_MS = 86_400_000
POLICY, RETENTION, OLDEST = "cleanup.policy", "retention.ms", "message.timestamp.before.max.ms"
TOPIC_ALREADY_EXISTS = 36


class Difference(NamedTuple):
    """One way in which a topic is not as the settings say."""

    what: str
    wanted: str
    found: str


class TopicReport(NamedTuple):
    """How a topic of the settings stands in Kafka.

    `state` is `created`, `as set`, `differs`, `theirs` (a mapped topic, whose form is its
    owner's), `missing`, or `on first use` (the embedded broker will make it).
    """

    role: str
    name: str
    state: State
    partitions: int | None = None
    cleanup_policy: str | None = None
    retention_days: float | None = None
    differences: tuple[Difference, ...] = ()


def check_broker(settings: Settings) -> None:
    """Check that the broker of the settings answers, before anything is begun that needs it.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or not with these settings.
    """
    if settings.security.protocol == "PLAINTEXT":
        broker_apis(settings.broker)
        return
    with connect_admin(settings) as admin:
        admin.describe_cluster()


def create_topics(settings: Settings) -> list[TopicReport]:
    """Make the topics of the settings that are missing; report how each stands.

    An embedded broker makes topics on first use only, so nothing is made there.

    Raises
    ------
    BrokerError
        The broker cannot be reached.
    TopicError
        The broker refused to make a topic.
    """
    if _embedded(settings):
        return _embedded_report(settings)
    with connect_admin(settings) as admin:
        reports = _compare(admin, settings)
        missing = [settings.topics[r.role] for r in reports if r.state == "missing"]
        if not missing:
            return reports
        made = _create(admin, missing)
        return [
            report._replace(state="created") if report.name in made else report
            for report in _compare(admin, settings)
        ]


def list_topics(settings: Settings) -> list[TopicReport]:
    """Report how each topic of the settings stands in Kafka; nothing is made.

    Raises
    ------
    BrokerError
        The broker cannot be reached.
    """
    if _embedded(settings):
        return _embedded_report(settings)
    with connect_admin(settings) as admin:
        return _compare(admin, settings)


def first_offsets(settings: Settings, partitions: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the first offset that each partition still has, by topic.

    Parameters
    ----------
    settings
        Broker, TLS and SASL.
    partitions
        How many partitions each topic has; the topics must exist.

    Raises
    ------
    BrokerError
        The broker does not tell.
    """
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    asked = {
        TopicPartition(name, number): earliest
        for name, count in partitions.items()
        for number in range(count)
    }
    found: dict[str, list[int]] = {name: [] for name in partitions}
    client = _client(settings)  # it answers only as long as somebody holds it
    try:
        answers = client.list_offsets(asked, request_timeout=10) if asked else {}
        for place, answer in answers.items():
            found[place.topic].append(answer.result().offset)
    except KafkaException as error:
        told = error.args[0].str()
        raise BrokerError(f"{settings.broker} does not tell where topics begin: {told}") from error
    return found


@contextmanager
def connect_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Lend kafka-python's admin client, connected to the broker of the settings.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses a request made inside.
    """
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(
            bootstrap_servers=settings.broker.split(","),
            bootstrap_timeout_ms=10_000,
            **kafka_python_options(settings),
        )
    except KafkaError as error:
        raise BrokerError(f"no connection to {settings.broker}: {error}") from error
    try:
        with admin:
            yield admin
    except KafkaError as error:
        raise BrokerError(f"{settings.broker} refused: {error or type(error).__name__}") from error


def _embedded(settings: Settings) -> bool:
    return settings.security.protocol == "PLAINTEXT" and is_embedded(settings.broker)


def _embedded_report(settings: Settings) -> list[TopicReport]:
    found = _client(settings).list_topics(timeout=10).topics
    return [
        TopicReport(role, topic.name, "as set", len(found[topic.name].partitions))
        if topic.name in found
        else TopicReport(role, topic.name, "on first use")
        for role, topic in settings.topics.items()
    ]


def _client(settings: Settings) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    plain: dict[str, Any] = {"bootstrap.servers": settings.broker, "log_level": 2}
    return AdminClient(plain | confluent_options(settings))


def _create(admin: KafkaAdminClient, topics: Iterable[TopicSettings]) -> set[str]:
    """Make topics and return the names of those that nobody else made meanwhile."""
    wanted = {
        topic.name: {"num_partitions": topic.partitions, "configs": _configs(topic)}
        for topic in topics
    }
    answer = admin.create_topics(wanted, raise_errors=False)
    refused = [
        f"{topic['name']} ({topic['error_message'] or 'error code ' + str(topic['error_code'])})"
        for topic in answer["topics"]
        if topic["error_code"] not in (0, TOPIC_ALREADY_EXISTS)
    ]
    if refused:
        raise TopicError(f"the broker refused to make {', '.join(refused)}")
    admin.wait_for_topics(list(wanted))
    return {topic["name"] for topic in answer["topics"] if not topic["error_code"]}


def _configs(topic: TopicSettings) -> dict[str, str]:
    configs = {POLICY: _policy(topic), RETENTION: str(_retention_ms(topic))}
    if "delete" in configs[POLICY] and topic.retention_days > 0:
        # Kafka would delete an older message within minutes: its producer is told instead.
        configs[OLDEST] = configs[RETENTION]
    return configs


def _policy(topic: TopicSettings) -> str:
    if not topic.compacted:
        return "delete"
    return "compact" if topic.retention_days < 0 else "compact,delete"


def _retention_ms(topic: TopicSettings) -> int:
    return -1 if topic.retention_days < 0 else round(topic.retention_days * DAY_MS)


def _compare(admin: KafkaAdminClient, settings: Settings) -> list[TopicReport]:
    from kafka.admin import ConfigResource, ConfigResourceType

    names = [topic.name for topic in settings.topics.values()]
    partitions = {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics(names)
        if not topic["error_code"]
    }
    asked = dict.fromkeys((POLICY, RETENTION))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, asked) for name in partitions]
    configs = admin.describe_configs(resources, config_filter="all") if resources else {}
    return [
        _report(role, topic, partitions[topic.name], configs["topic"][topic.name])
        if topic.name in partitions
        else TopicReport(role, topic.name, "missing")
        for role, topic in settings.topics.items()
    ]


def _report(
    role: str, topic: TopicSettings, partitions: int, configs: Mapping[str, Mapping[str, Any]]
) -> TopicReport:
    policy = ",".join(sorted(configs[POLICY]["value"].replace(" ", "").split(",")))
    retention_ms = int(configs[RETENTION]["value"])
    pairs = [
        ("partitions", str(topic.partitions), str(partitions)),
        ("cleanup policy", _policy(topic), policy),
    ]
    if "delete" in policy and "delete" in _policy(topic):
        pairs.append(("retention", _days(_retention_ms(topic)), _days(retention_ms)))
    differences = tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])
    state: State = "theirs" if topic.mapped else "differs" if differences else "as set"
    return TopicReport(
        role,
        topic.name,
        state,
        partitions,
        policy,
        -1.0 if retention_ms < 0 else retention_ms / DAY_MS,
        () if topic.mapped else differences,
    )


def _days(milliseconds: int) -> str:
    return "for ever" if milliseconds < 0 else f"{milliseconds / DAY_MS:g} days"
