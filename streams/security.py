"""TLS and SASL settings in the words of each Kafka client; nothing of them for plain brokers."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["aiokafka_options", "confluent_options", "kafka_python_options"]


def aiokafka_options(settings: Settings | None) -> dict[str, Any]:
    """Arguments for an aiokafka client beside `bootstrap_servers`."""
    options = _common(settings)
    if settings and settings.security.protocol.endswith("SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=settings.security.ca_file)
    return options


def kafka_python_options(settings: Settings | None) -> dict[str, Any]:
    """Arguments for a kafka-python client beside `bootstrap_servers`."""
    options = _common(settings)
    if settings and settings.security.protocol.endswith("SSL") and settings.security.ca_file:
        options["ssl_cafile"] = str(settings.security.ca_file)
    return options


def confluent_options(settings: Settings | None) -> dict[str, Any]:
    """Settings for a confluent-kafka client beside `bootstrap.servers`."""
    names = {
        "security_protocol": "security.protocol",
        "sasl_mechanism": "sasl.mechanism",
        "sasl_plain_username": "sasl.username",
        "sasl_plain_password": "sasl.password",
        "ssl_cafile": "ssl.ca.location",
    }
    return {names[name]: value for name, value in kafka_python_options(settings).items()}


def _common(settings: Settings | None) -> dict[str, Any]:
    if settings is None or settings.security.protocol == "PLAINTEXT":
        return {}
    security = settings.security
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.startswith("SASL"):
        password = security.sasl_password
        options["sasl_mechanism"] = security.sasl_mechanism
        options["sasl_plain_username"] = security.sasl_username
        options["sasl_plain_password"] = password.get_secret_value() if password else None
    return options
