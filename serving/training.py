"""What a trainer shows: its metrics, and a bar on the terminal while a lesson is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from learners.errors import BrokerError
from serving.progress import progress_bar

if TYPE_CHECKING:
    from learners.deep.memory import Happening
    from serving.progress import Update
    from streams.trainer import Trainer

__all__ = ["Shown", "TrainerMetrics"]

HAPPENINGS = ("begun", "born", "trial", "promoted", "discarded", "rolled_back", "retired")
TROUBLES = ("alarm", "failed", "problem")


class TrainerMetrics(Collector):
    """The metrics of one trainer."""

    def __init__(self) -> None:
        self.events = 0
        self.lag: int | None = None
        self.steps = (0, 0)  # done, of how many
        self.happened: Counter[str] = Counter()
        self.rates: dict[str, float] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing at registration."""
        return ()

    def note(self, told: Happening) -> None:
        """Count what happened; keep the latest figures."""
        self.happened[told.what] += 1
        for name in ("champion_hr@20", "challenger_hr@20"):
            if name in told.figures:
                self.rates[name.partition("_")[0]] = float(told.figures[name])

    def collect(self) -> Iterator[Metric]:
        """Yield everything, as it is now."""
        yield CounterMetricFamily(
            "everlearn_trainer_events", "clicks and purchases learnt", value=self.events
        )
        if self.lag is not None:
            yield GaugeMetricFamily("everlearn_trainer_lag_events", "not learnt yet", self.lag)
        done, of = self.steps
        yield GaugeMetricFamily("everlearn_trainer_lesson_steps", "steps of the lesson", done)
        yield GaugeMetricFamily("everlearn_trainer_lesson_steps_planned", "steps of it in all", of)
        counted = CounterMetricFamily(
            "everlearn_trainer_happenings", "what became of lessons and snapshots", labels=["what"]
        )
        for what in (*HAPPENINGS, *TROUBLES):
            counted.add_metric([what], self.happened[what])
        yield counted
        rates = GaugeMetricFamily(
            "everlearn_trainer_hit_rate", "at the latest verdict, among 20", labels=["model"]
        )
        for model, rate in self.rates.items():
            rates.add_metric([model], rate)
        yield rates

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Serve the page while the block runs; port 0: do not.

        Raises
        ------
        BrokerError
            The port is taken.
        """
        if not port:
            yield
            return
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise BrokerError(
                f"trainer.port {port} of {host} cannot be taken: {error.strerror}; name another"
            ) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Shown:
    """Shows a trainer on the terminal and in its metrics.

    Parameters
    ----------
    metrics
        Where everything is counted.
    """

    def __init__(self, metrics: TrainerMetrics) -> None:
        self.metrics = metrics
        self._update: Update = _show_nothing

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Show a bar of the lesson under way, if somebody watches."""
        with progress_bar("lesson", with_rate=False) as self._update:
            yield self

    def learnt(self, trainer: Trainer) -> None:
        """Note how far learning is."""
        self.metrics.events = trainer.lifelong.books.events
        self.metrics.lag = trainer.lag

    def trained(self, done: int, of: int) -> None:
        """Note how far a lesson is."""
        self.metrics.steps = (done, of)
        self._update(done, of, "")

    def happened(self, told: Happening) -> None:
        """Note what became of a snapshot."""
        self.metrics.note(told)
        self._update(*self.metrics.steps, f"{told.what} {told.snapshot or ''}")


def _show_nothing(done: int, total: int | None, note: str) -> None:
    """Do nothing: no bar is open."""
