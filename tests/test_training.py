"""What a trainer shows: its metrics, served where the settings say."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from learners.deep.memory import Happening
from learners.errors import BrokerError
from serving.training import Shown, TrainerMetrics


def happening(what: str, **figures: float) -> Happening:
    return Happening(what, "00000001-aaaaaaaa", 100, 5.0, "", figures)


def test_metrics_count_what_happened_and_keep_the_latest_figures(
    free_port: Callable[[], int],
) -> None:
    metrics, port = TrainerMetrics(), free_port()
    with metrics.served("127.0.0.1", port), Shown(metrics).open() as shown:
        shown.trained(3, 8)
        shown.happened(happening("born"))
        for hit_rate in (0.25, 0.5):
            told = {"champion_hr@20": 0.125, "challenger_hr@20": hit_rate}
            shown.happened(happening("trial", **told))
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "everlearn_trainer_lesson_steps 3.0" in page
    assert "everlearn_trainer_lesson_steps_planned 8.0" in page
    assert 'everlearn_trainer_happenings_total{what="trial"} 2.0' in page
    assert 'everlearn_trainer_happenings_total{what="promoted"} 0.0' in page
    assert 'everlearn_trainer_hit_rate{model="challenger"} 0.5' in page
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(BrokerError, match=f"trainer.port {port} of 127.0.0.1 cannot be taken"),
            TrainerMetrics().served("127.0.0.1", port),
        ):
            pass


def test_a_node_does_not_load_torch() -> None:
    code = "import sys, serving.node, serving.api; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
