"""Every error that everlearn raises on purpose.

EverlearnError
├── SettingsError         a setting is unknown, malformed or out of bounds
├── BrokerError           the broker cannot be reached, or refused
├── TopicError            a topic is missing, or differs from its settings
├── DeliveryError         the broker did not acknowledge a message
├── DataError             a file or data set cannot be read as what it should be
├── CheckpointError       a checkpoint cannot be written or read
│   └── EventsLostError   Kafka has dropped events the checkpoint still needs
├── SnapshotError         a snapshot is damaged, foreign or missing
└── CheckFailedError      a source of candidates broke its contract

A message says what was wrong, the value, and the cure. A bad *event* is data, not an error:
`streams.decode.Rejected`.
"""

__all__ = [
    "BrokerError",
    "CheckFailedError",
    "CheckpointError",
    "DataError",
    "DeliveryError",
    "EventsLostError",
    "EverlearnError",
    "SettingsError",
    "SnapshotError",
    "TopicError",
]


class EverlearnError(Exception):
    """Base of all errors of this project; the command line prints them without a traceback."""


class SettingsError(EverlearnError):
    """A setting is unknown, malformed or out of bounds."""


class BrokerError(EverlearnError):
    """The broker cannot be reached, or refused what was asked."""


class TopicError(EverlearnError):
    """A topic is missing, or differs from its settings."""


class DeliveryError(EverlearnError):
    """The broker did not acknowledge a message."""


class DataError(EverlearnError):
    """A file or data set cannot be read as what it should be."""


class CheckpointError(EverlearnError):
    """A checkpoint cannot be written or read."""


class EventsLostError(CheckpointError):
    """Kafka has dropped events that the checkpoint has not learnt yet."""


class SnapshotError(EverlearnError):
    """A snapshot of the deep model is damaged, foreign or missing, or cannot be written."""


class CheckFailedError(EverlearnError):
    """A source of candidates broke its contract (`learners.checks`)."""
