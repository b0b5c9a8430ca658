"""Lifelong learning as one state machine: lessons, verdicts, rollback, erasure, and kills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners.base import CLICK, ERASURE, Batch
from learners.deep.lesson import Lesson, Progress, Trained, hold
from learners.deep.lifelong import Lifelong
from learners.deep.memory import Happening
from learners.deep.registry import Registry
from learners.store.texts import keys_64
from tests.walks import CONFIG, START, batches, hold_shuffled, hold_with_nan, walks

EVENTS, TURNS = 7500, 4600
Hold = Callable[[Lesson, Progress], Trained]


def run(lifelong: Lifelong, log: Sequence[Batch]) -> list[Happening]:
    return [told for batch in log for told in lifelong.learn(batch)]


def whats(told: Sequence[Happening]) -> list[str]:
    return [each.what for each in told]


class Life:
    """A finished run over a log that turns."""

    def __init__(self, folder: Path, size: int = 500) -> None:
        self.registry = Registry(folder)
        self.lifelong = Lifelong(CONFIG, self.registry)
        self.told = run(self.lifelong, batches(walks(EVENTS, turns_at=TURNS), size))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return Life(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Lifelong]:
    """Make one with a good champion and nothing under way; each in a folder of its own."""
    root = tmp_path_factory.mktemp("grown")
    log = batches(walks(2400))
    count = 0

    def grow(hold: Hold = hold, **more: Any) -> Lifelong:
        nonlocal count
        count += 1
        config = replace(CONFIG, every_events=10**6, **more)
        lifelong = Lifelong(config, Registry(root / str(count)), hold=hold_once(hold))
        assert "promoted" in whats(run(lifelong, log))
        return lifelong

    return grow


def hold_once(then: Hold) -> Hold:
    """Hold the first lesson as it should be, those after it otherwise."""
    return lambda lesson, progress: (hold if lesson.parent is None else then)(lesson, progress)


def later(n: int, **more: Any) -> list[Batch]:
    """What follows in a world that has not turned."""
    return batches(walks(2400 + n, **more)[2400:], prefix="later")


def test_a_challenger_is_born_judged_and_promoted(life: Life) -> None:
    assert whats(life.told)[:3] == ["begun", "born", "promoted"]
    first = life.told[2]
    assert first.figures["challenger_hr@20"] > 2 * first.figures["champion_hr@20"], "popularity's"
    assert life.lifelong.champion is not None
    assert life.registry.alias("champion") == life.lifelong.champion.id


def test_manifests_tell_parents_events_and_figures(life: Life) -> None:
    told = {each["id"]: each for each in life.registry.manifests()}
    champion = told[life.registry.alias("champion") or ""]
    assert champion["parent"] in told
    assert told[min(told)]["parent"] is None
    assert told[min(told)]["events"] == CONFIG.first_events
    assert told[min(told)]["positions"] == {"clicks/0": 1000}
    assert champion["config"]["width"] == CONFIG.model.width
    assert champion["tuning"]["seed"] == champion["seed"]
    assert champion["time_from"] < champion["time_until"] <= START + EVENTS
    gate = champion["gate"]
    assert gate["decision"] == "promote"
    assert gate["challenger_hr@20"] > gate["champion_hr@20"]
    assert gate["old_targets"] > 0


def test_after_a_turn_an_alarm_begins_a_lesson_and_the_new_taste_is_learnt(life: Life) -> None:
    alarms = [each.events for each in life.told if each.what == "alarm"]
    assert TURNS < alarms[0] < TURNS + 1500
    begun = [each.events for each in life.told if each.what == "begun"]
    assert any(alarms[0] <= events < alarms[0] + 700 for events in begun)
    whys = [each.why for each in life.told if each.what == "begun"]
    assert whys[0] == "events"
    assert "alarm" in whys
    verdicts = [each for each in life.told if each.events > TURNS + 1500 and each.figures]
    best = max(each.figures.get("challenger_hr@20", 0.0) for each in verdicts)
    assert best > 0.5


def test_the_same_log_gives_the_same_snapshots_however_it_is_cut(
    life: Life, tmp_path: Path
) -> None:
    again = Life(tmp_path, size=250)
    assert [(each.what, each.events) for each in again.told] == [
        (each.what, each.events) for each in life.told
    ]
    for one, other in zip(again.registry.ids(), life.registry.ids(), strict=True):
        arrays = again.registry.read(one).arrays
        for name, array in life.registry.read(other).arrays.items():
            np.testing.assert_array_equal(array, arrays[name])


def test_a_lesson_knows_no_item_that_came_after_it_was_cut(tmp_path: Path) -> None:
    """However much of the log is learnt at once."""
    late = [(CLICK, f"u{i}", f"late-{i}", START + 1500 + i) for i in range(50)]
    log = batches([*walks(1500), *late], 1550)
    lifelong = Lifelong(CONFIG, Registry(tmp_path))
    assert whats(run(lifelong, log))[:2] == ["begun", "born"]
    items = lifelong.registry.read(lifelong.registry.ids()[0]).items
    assert not [item for item in items if item.startswith("late-")]


def test_a_run_taken_up_after_every_batch_ends_the_same(life: Life, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    state: dict[str, Any] = {}
    for batch in batches(walks(EVENTS, turns_at=TURNS)):
        lifelong = Lifelong(CONFIG, registry)
        if state:
            lifelong.load_state(state)
        lifelong.learn(batch)
        state = {name: np.array(array) for name, array in lifelong.state().items()}
    assert registry.ids() == life.registry.ids()
    assert registry.aliases() == life.registry.aliases()
    for name, array in life.lifelong.state().items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)


def test_repeated_events_are_learnt_once(tmp_path: Path) -> None:
    lifelong = Lifelong(CONFIG, Registry(tmp_path))
    for _ in range(2):
        run(lifelong, batches(walks(1000)))
    assert lifelong.books.events == 1000
    assert lifelong.books.ledger()["clicks/0"]["count"] == 1000


@pytest.mark.parametrize(
    ("poison", "why"),
    [(hold_with_nan, "its weights are no finite numbers"), (hold_shuffled, "worse than")],
)
def test_a_poisoned_challenger_is_discarded(
    grown: Callable[..., Lifelong], poison: Hold, why: str
) -> None:
    lifelong = grown(poison)
    champion = lifelong.registry.alias("champion")
    lifelong.books.due = True
    told = run(lifelong, later(1500))
    assert whats(told)[-1] == "discarded"
    assert why in told[-1].why
    assert lifelong.registry.alias("champion") == champion
    manifest = lifelong.registry.manifest(told[-1].snapshot or "")
    assert (manifest["state"], manifest["why"]) == ("discarded", told[-1].why)


def test_a_lesson_that_fails_leaves_everything_as_it_was(grown: Callable[..., Lifelong]) -> None:
    def fail(lesson: Lesson, progress: Progress) -> Trained:
        raise RuntimeError("no memory")

    failed: Future[Trained] = Future()
    failed.set_exception(RuntimeError("no memory"))
    lifelong = grown(fail)
    lifelong._submit = lambda lesson: failed
    before = lifelong.registry.aliases()
    lifelong.books.due = True
    assert whats(run(lifelong, later(500))) == ["begun"]
    assert whats(lifelong.look()) == ["failed"]
    assert lifelong.registry.aliases() == before
    assert len(lifelong.memory.fresh) > 0, "what was to be taught is still to be taught"


def test_one_that_turns_out_bad_live_is_rolled_back(grown: Callable[..., Lifelong]) -> None:
    lifelong = grown(hold_shuffled)
    registry, good = lifelong.registry, lifelong.champion
    assert good is not None
    bad = registry.read(good.id)
    code = np.random.default_rng(1).permutation(bad.arrays["code"])
    id = registry.write(
        {**bad.arrays, "code": code}, bad.items, {**bad.manifest, "parent": good.id}
    )
    registry.promote(id)  # somebody knew better
    told = run(lifelong, later(1000))
    assert whats(told) == ["rolled_back"]
    assert told[0].snapshot == id
    assert told[0].figures["now_hr@20"] < told[0].figures["before_hr@20"]
    assert registry.alias("champion") == good.id
    assert registry.manifest(id)["state"] == "rolled_back"


def test_a_model_of_another_shape_begins_from_nothing(grown: Callable[..., Lifelong]) -> None:
    former = grown()
    wider = replace(CONFIG, model=replace(CONFIG.model, width=48), every_events=10**6)
    lifelong = Lifelong(wider, former.registry)
    told = run(lifelong, batches(walks(3500)))
    assert whats(told)[:2] == ["begun", "born"]
    manifest = lifelong.registry.manifest(told[1].snapshot or "")
    assert manifest["parent"] is None
    assert manifest["gate"]["champion_hr@20"] > 0.4, "the champion's, not popularity's"


def test_a_champion_that_cannot_be_read_does_not_serve(grown: Callable[..., Lifelong]) -> None:
    lifelong = grown()
    good, registry = lifelong.champion, lifelong.registry
    assert good is not None
    snapshot = registry.read(good.id)
    id = registry.write(dict(snapshot.arrays), snapshot.items[:-1], snapshot.manifest)
    registry.promote(id)
    weights = registry.root / "snapshots" / id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    told = run(lifelong, later(500))
    assert whats(told) == ["problem"]
    assert "damaged" in told[0].why
    assert lifelong.champion is good


def everything_of(lifelong: Lifelong, user: str) -> int:
    """Count what is held of a user, in every part of the state."""
    key = keys_64([user])[0]
    return sum(
        int(np.count_nonzero(array == key))
        for name, array in lifelong.state().items()
        if name.endswith("user")
    )


def erasure(user: str, time: float) -> Batch:
    return batches([(ERASURE, user, "", time)], prefix=f"forget {user}")[0]


def test_an_erased_user_leaves_at_once_and_snapshots_tell(grown: Callable[..., Lifelong]) -> None:
    lifelong = grown()
    lifelong.books.due = True
    run(lifelong, later(300))
    users = [user for user in map("u{}".format, range(80)) if everything_of(lifelong, user) > 2]
    lifelong.learn(erasure(users[0], START + 3000))
    assert everything_of(lifelong, users[0]) == 0
    assert everything_of(lifelong, users[1]) > 2
    erased = {"first": START + 3000, "latest": START + 3000}
    assert [told["erased"] for told in lifelong.registry.manifests()] == [erased, erased]


def test_what_was_trained_before_an_erasure_is_replaced_then_retired(
    grown: Callable[..., Lifelong],
) -> None:
    days = 2400 / 86400.0
    lifelong = grown(retire_days=days)
    first = lifelong.registry.alias("champion")
    lifelong.learn(erasure("u1", START + 2400))
    told = run(lifelong, later(3000))
    assert whats(told)[:2] == ["begun", "born"], "at half the time, without the erased"
    assert told[0].time >= START + 2400 + 1200
    assert ("retired", first) in [(each.what, each.snapshot) for each in told]
    assert first not in lifelong.registry.ids()
    assert lifelong.registry.alias("champion") == told[1].snapshot
    assert "erased" not in lifelong.registry.manifest(told[1].snapshot or "")


def test_a_full_vocabulary_gives_up_what_is_unseen_for_longest(tmp_path: Path) -> None:
    lifelong = Lifelong(replace(CONFIG, items=130), Registry(tmp_path))
    fashions = [
        (kind, user, f"{item}-{i // 2000}", time)
        for i, (kind, user, item, time) in enumerate(walks(4500))
    ]
    told = run(lifelong, batches(fashions))
    assert whats(told).count("born") >= 2
    assert len(lifelong.memory.items) <= 130
    champion = lifelong.champion
    assert champion is not None
    newest = lifelong.registry.read(lifelong.registry.ids()[-1])
    assert len(set(newest.items)) == len(newest.items) <= 130


def test_a_lesson_held_beside_is_judged_by_what_came_meanwhile(tmp_path: Path) -> None:
    """However long it takes: the first questions after the cut judge it."""
    waiting: list[tuple[Future[Trained], Callable[[], Trained]]] = []

    def beside(lesson: Callable[[], Trained]) -> Future[Trained]:
        waiting.append((Future(), lesson))
        return waiting[-1][0]

    lifelong = Lifelong(CONFIG, Registry(tmp_path), submit=beside)
    log = batches(walks(3500))
    assert whats(run(lifelong, log[:5])) == ["begun"]
    assert lifelong.look() == []
    waiting[0][0].set_result(waiting[0][1]())
    assert whats(lifelong.look()) == ["born"]
    promoted = run(lifelong, log[5:6])
    assert whats(promoted)[0] == "promoted"
    assert promoted[0].figures["targets"] == CONFIG.gate.targets
    at_once = Lifelong(CONFIG, Registry(tmp_path / "at once"))
    same = next(each for each in run(at_once, log[:6]) if each.what == "promoted")
    assert same.figures == promoted[0].figures


def test_what_a_kill_leaves_between_two_writes_is_put_right(tmp_path: Path) -> None:
    """The state of before a birth, of before a verdict: the registry has gone on."""
    registry = Registry(tmp_path)
    lifelong = Lifelong(CONFIG, registry)
    log = batches(walks(3000), 100)
    states: list[dict[str, Any]] = []
    happened: list[list[str]] = []
    for batch in log[:20]:
        states.append({name: np.array(array) for name, array in lifelong.state().items()})
        happened.append(whats(lifelong.learn(batch)))
        if "born" in happened[-1]:
            orphan = Lifelong(CONFIG, registry)
            orphan.load_state(states[-1])
            assert registry.alias("challenger") is None
            assert registry.manifests()[-1]["state"] == "discarded"
            assert orphan.books.again
            assert whats(orphan.look()) == ["begun", "born"]
            break
    again = Lifelong(CONFIG, Registry(tmp_path / "again"))
    for batch in log:
        state = {name: np.array(array) for name, array in again.state().items()}
        if "promoted" in whats(again.learn(batch)):
            break
    followed = Lifelong(CONFIG, again.registry)
    followed.load_state(state)
    assert followed.champion is not None
    assert followed.champion.id == again.registry.alias("champion")
    assert followed.season is None
    assert not followed.books.again
