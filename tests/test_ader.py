"""ADER's protocol, on weeks small enough to be counted by hand or by slow, plain Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from benchmarks import vsknn
from benchmarks.ader_engine import EngineContestant
from benchmarks.ader_protocol import Contestant, figures_of, run_protocol
from benchmarks.ader_stream import Stream, read_stream
from benchmarks.rows import ROOT
from learners.base import EngineConfig
from serving.cli import app
from tests.weeks import ITEMS, Click, shop, slow_cycles, slow_scores, stream_of, write

KS = ("recall@20", "mrr@20", "recall@10", "mrr@10")


def engine(stream: Stream) -> EngineContestant:
    return EngineContestant(stream, EngineConfig(sessions=512, candidates=40))


def rows_of(file: Path, *words: str) -> dict[tuple[str, str], dict[str, object]]:
    """Run the command; return its rows by method and protocol."""
    command = ["bench", "ader", str(file), "--json", *words]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {(row["method"], row["protocol"]): row for row in rows}


# By hand: the letters are items.
LETTERS = ["1ab", "2bc", "/", "3a", "3x", "4x", "3b", "4a", "5a", "6bc", "6a", "6a"]


def by_hand() -> list[Click]:
    """`3ax`: session 3 clicks a, then x; after the stroke comes the next period."""
    clicks, period = [], 0
    for word in LETTERS:
        period += word == "/"
        clicks += [Click(period, int(word[0]), ord(item)) for item in word[1:]]
    return clicks


def test_a_period_is_tested_on_items_learnt_before_it_and_sessions_of_two() -> None:
    stream = stream_of(by_hand())
    part = stream.unlearnt(4, len(by_hand()))
    targets = part.targets()
    name = dict(zip(stream.clicks.item.tolist(), (chr(c.item) for c in by_hand()), strict=False))
    pairs = [
        name[int(part.clicks.item[place])]
        + name[int(part.clicks.item[part.clicks.previous[place]])]
        for place in targets
    ]
    # x is unknown: session 3 is a b, session 4 has one click left, as session 5 has.
    assert pairs == ["ba", "cb", "ac", "aa"]
    outcome = run_protocol("per_period", stream, partial(vsknn.VSKNN, stream), 1)
    assert [len(ranks) for ranks in outcome.ranks] == [4]


def test_click_by_click_an_item_counts_from_its_second_click_on() -> None:
    stream = stream_of(by_hand())
    outcome = run_protocol("per_event", stream, partial(vsknn.VSKNN, stream), 1)
    # 3: b (x was new); 4: a; 6: c, a, a.
    assert [len(ranks) for ranks in outcome.ranks] == [5]


def test_a_session_over_the_end_of_a_week_is_two() -> None:
    clicks = [Click(0, 1, 7), Click(0, 1, 8), Click(1, 1, 7), Click(1, 1, 8)]
    assert stream_of(clicks).clicks.previous.tolist() == [-1, 0, -1, 2]


@pytest.mark.parametrize(("k", "sample"), [(3, 8), (100, 500), (5, 1)])
def test_vsknn_scores_as_its_slow_plain_version_does(k: int, sample: int) -> None:
    stream = stream_of(shop())
    index = vsknn.make_index(stream.session, stream.clicks.item)
    scratch = vsknn.make_scratch(index)
    vsknn.learn(index, stream.session, stream.clicks.item)
    learnt = list(zip(stream.session.tolist(), stream.clicks.item.tolist(), strict=True))
    for own in range(40, 90):
        query = stream.clicks.item[stream.session == own][::-1]
        scratch.query[: len(query)] = query
        voted = vsknn.votes(index, scratch, len(query), own, k, sample)
        slow = slow_scores(learnt, query.tolist(), own, k, sample)
        named = scratch.named[:voted].tolist()
        assert len(named) == len(slow)
        assert dict(zip(named, scratch.score[:voted].tolist(), strict=True)) == pytest.approx(slow)


@pytest.mark.parametrize("protocol", ["per_period", "per_event"])
def test_the_protocol_is_what_a_slow_plain_version_of_it_finds(
    protocol: str, tmp_path: Path
) -> None:
    clicks = shop(periods=3, sessions=40)
    clicks.append(Click(2, 7_000, 900))  # nobody has met this item before
    clicks.extend(Click(2, 7_001, item) for item in (3, 900, 4, 900))
    file = write(clicks, tmp_path / "weeks.parquet")
    row = rows_of(file, "--method", "vsknn", "--protocol", protocol)["vsknn", protocol]
    slow = list(slow_cycles(clicks, protocol == "per_event"))
    assert row["n"] == sum(map(len, slow))
    figures = [figures_of(np.array(ranks)) for ranks in slow]
    for name in KS:
        by_cycle = [cycle[name] for cycle in figures]
        assert row["cycles"][name] == pytest.approx(by_cycle)  # type: ignore[index]
        assert row[name] == pytest.approx(np.mean(by_cycle), abs=0.001)


CONTESTANTS: list[Callable[[Stream], Contestant]] = [engine, vsknn.VSKNN]


def halves(clicks: list[Click], period: int) -> tuple[list[int], list[int]]:
    """Places of the sessions of the first and of the second half of a period."""
    places = [place for place, click in enumerate(clicks) if click.period == period]
    middle = clicks[places[len(places) // 2]].session
    first = [place for place in places if clicks[place].session < middle]
    return first, places[len(first) :]


@pytest.mark.parametrize("make", CONTESTANTS)
@pytest.mark.parametrize("protocol", ["per_period", "per_event"])
def test_only_click_by_click_does_a_period_teach_what_comes_later_in_it(
    make: Callable[[Stream], Contestant], protocol: str
) -> None:
    clicks = shop()
    first, second = halves(clicks, period=2)
    items = np.random.default_rng(1).permutation(ITEMS)
    other = list(clicks)
    for place in first:
        other[place] = clicks[place]._replace(item=int(items[clicks[place].item]))
    ranks = []
    for told in (clicks, other):
        stream = stream_of(told)
        outcome = run_protocol(protocol, stream, partial(make, stream), 3)  # type: ignore[arg-type]
        ranks.append(outcome.ranks)
    targets = sum(stream.clicks.previous[second] >= 0)
    assert targets > 50
    assert np.array_equal(ranks[0][0], ranks[1][0])
    assert not np.array_equal(ranks[0][2], ranks[1][2])
    same = np.array_equal(ranks[0][1][-targets:], ranks[1][1][-targets:])
    assert same == (protocol == "per_period")


def test_a_test_leaves_the_engine_as_it_was_until_it_has_ended() -> None:
    stream = stream_of(shop())
    contestant = engine(stream)
    begin, end = map(int, stream.starts[1:3])
    contestant.learn(0, begin)

    def state() -> dict[str, NDArray[np.generic]]:
        parts = contestant.memory.parts()
        return {
            f"{part}.{name}": np.array(array)
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }

    before = state()
    part = stream.unlearnt(begin, end)
    first = contestant.test(part, part.targets())
    assert all(np.array_equal(before[name], array) for name, array in state().items())
    assert np.array_equal(first, contestant.test(part, part.targets()))
    contestant.end_test()
    changed = {name for name, array in state().items() if not np.array_equal(before[name], array)}
    assert changed
    assert all(name.startswith("blend.") for name in changed)
    taught = contestant.test(part, part.targets())
    assert (taught[:, 0] != first[:, 0]).any()
    assert np.array_equal(taught[:, 1:], first[:, 1:])


def test_a_list_holds_what_ranks_best() -> None:
    stream = stream_of(shop())
    begin, end = map(int, stream.starts[2:4])
    part = stream.unlearnt(begin, end)
    targets = part.targets()
    for make in CONTESTANTS:
        contestant = make(stream)
        contestant.learn(0, begin)
        contestant.test(part, targets)
        contestant.end_test()  # a blend that has learnt nothing scores many alike
        ranks = contestant.test(part, targets)
        for place, method in enumerate(contestant.methods):
            assert contestant.can_answer(method)
            best = contestant.answer(method, part, targets)
            listed = best == part.clicks.item[targets][:, None]
            within = ranks[:, place] <= 10  # then not even ties can push it out of the 20
            assert within.sum() > 5, method
            assert listed[within].any(axis=1).all(), method
            if method == "blend":  # whose scores do not tie
                found = listed.any(axis=1)
                assert np.array_equal(listed[found].argmax(axis=1) + 1, ranks[found, place])


def test_the_command_gives_a_row_for_each_method_and_protocol(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    rows = rows_of(file, "--settings", str(ROOT / "benchmarks" / "ader-recipe.toml"))
    methods = ("popularity", "transitions", "neighbours", "blend", "vsknn")
    assert {(m, p) for m in methods for p in ("per_period", "per_event")} <= rows.keys()
    assert rows["blend", "per_event"]["constants"]["hidden_units"] == 32  # type: ignore[index]
    for (method, _), row in rows.items():
        assert row["benchmark"] == "ader"
        assert float(str(row["microseconds_per_learn"])) > 0
        for name in KS:
            cycles = row["cycles"][name]  # type: ignore[index]
            assert len(cycles) == 3
            assert row[name] == pytest.approx(np.mean(cycles), abs=0.001)
            assert 0 <= row[name] <= 100  # type: ignore[operator]
        if method in methods:
            assert float(str(row["microseconds_per_query"])) > 0
    blend, popular = rows["blend", "per_period"], rows["popularity", "per_period"]
    assert blend["mrr@20"] > popular["mrr@20"]  # type: ignore[operator]
    assert blend["n"] == rows["vsknn", "per_period"]["n"]
    assert blend["of_vsknn"]["microseconds_per_query"] > 0  # type: ignore[index]


def test_a_sample_is_of_whole_sessions_and_cycles_can_be_fewer(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    whole, part = read_stream(file), read_stream(file, sample=3)
    assert whole.sampled.all()
    chosen = set(part.session[part.sampled].tolist())
    assert 0.2 < len(chosen) / (part.session.max() + 1) < 0.5
    assert set(part.session[~part.sampled].tolist()).isdisjoint(chosen)
    words = ("--method", "vsknn", "--protocol", "per_period", "--sample", "3", "--cycles", "2")
    row = rows_of(file, *words)["vsknn", "per_period"]
    assert len(row["cycles"]["n"]) == 2  # type: ignore[index]
    assert row["n"] == np.sum(
        part.clicks.previous[part.starts[1] : part.starts[3]][
            part.sampled[part.starts[1] : part.starts[3]]
        ]
        >= 0
    )


@pytest.mark.parametrize(
    ("clicks", "words", "code", "told"),
    [
        (None, (), 1, "does not exist"),
        ([Click(1, 1, 1), Click(2, 1, 1)], (), 1, "learns period 0"),
        ([Click(0, 1, 1), Click(1, 1, 2)], (), 1, "nothing that could be foreseen"),
        ([Click(0, 1, 1), Click(1, 1, 2)], ("--protocol", "hourly"), 2, "per_period, per_event"),
        ([Click(0, 1, 1), Click(1, 1, 2)], ("--method", "gru"), 2, "vsknn"),
    ],
)
def test_what_cannot_be_run_is_told_in_words(
    clicks: list[Click] | None, words: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "weeks.parquet"
    if clicks:
        write(clicks, file)
    result = CliRunner().invoke(app, ["bench", "ader", str(file), *words])
    said = " ".join([result.output, str(result.exception)])
    assert result.exit_code == code
    assert told in said
