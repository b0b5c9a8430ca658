"""What the settings mean, for `everlearn settings` and the example file."""

from __future__ import annotations

from typing import Any

__all__ = ["ENGINE_BOUNDS", "ENGINE_MEANINGS", "OTHER_VARIABLES", "ROLES", "ROLE_MEANINGS"]

ROLES: dict[str, dict[str, Any]] = {
    "clicks": {"name": "everlearn.clicks", "type": "click"},
    "purchases": {"name": "everlearn.purchases", "type": "purchase"},
    "impressions": {"name": "everlearn.impressions", "type": "impression", "retention_days": 30.0},
    "items": {
        "name": "everlearn.items",
        "type": "item",
        "retention_days": -1.0,
        "compacted": True,
    },
    "erasures": {"name": "everlearn.erasures", "type": "erasure", "retention_days": -1.0},
    "dead_letters": {
        "name": "everlearn.dead-letters",
        "partitions": 1,
        "retention_days": 30.0,
        "compacted": True,
    },
    "snapshots": {"name": "everlearn.snapshots", "partitions": 1, "retention_days": -1.0},
}

ROLE_MEANINGS = {
    "clicks": "what users look at; key: user",
    "purchases": "what users buy; key: user",
    "impressions": "what users were shown; key: user",
    "items": "the catalogue, the last word on each item; key: item, no value deletes it",
    "erasures": "users to forget; key: user",
    "dead_letters": "messages that are no event, with the reason; key: topic/partition/offset",
    "snapshots": "announcements of new deep models",
}

ENGINE_MEANINGS = {
    "seed": "seed of all randomness",
    "users": "users kept; the longest silent make room",
    "items": "items kept; the longest unseen make room",
    "sessions": "recent sessions kept",
    "history_length": "newest events kept of a user",
    "session_gap_seconds": "silence that ends a session where events name none",
    "admit_items_after": "clicks and purchases, or a catalogue entry, before an item is learnt",
    "dedupe_events": "newest event ids remembered, to skip repeated deliveries",
    "evaluate_one_in": "share of events ranked before they are learnt: 1 in this many",
    "blend_warmup_events": "first clicks and purchases, all of which teach the blend; later, those "
    "that are evaluated do",
    "candidates": "items that the blend ranks for an answer",
    "hidden_units": "units of the blend's hidden layer",
    "blend_rate": "step length of the blend",
    "neighbours": "similar sessions that vote for their items",
    "neighbour_sessions": "newest sessions of an item in which neighbours are sought",
    "neighbour_half_life_seconds": "age at which a neighbour's vote is halved",
    "neighbour_query_scale": "clicks back at which a query item finds neighbours e times weaker",
    "neighbour_idf_power": "power of a query item's rarity, ln(1 + sessions / those with it)",
    "neighbour_length_power": "a session of n items counts n to minus this power",
    "neighbour_vote_scale": "clicks back at which a neighbour's latest match lets it vote e times "
    "weaker",
    "neighbour_vote_idf_power": "power of the rarity of an item that is voted for",
    "neighbour_after_scale": "places after the match at which a vote is e times weaker",
    "neighbour_before_scale": "places before the match at which a vote is e times weaker",
    "transition_half_lives_seconds": "ages at which an item-to-item step counts half",
    "transition_slots": "followers kept of an item",
    "factor_rate": "step length of the session factorisation",
    "factor_correction": "share of ln(how often an item came lately) taken from its logit",
    "factor_recent": "newest events that the factorisation draws its negatives from",
    "content_candidates": "items named for their catalogue entry; 0 leaves the source out",
    "popularity_half_lives_seconds": "ages at which an event counts half for popularity",
    "drift_action": "whether an alarm of the drift detectors makes the engine forget and relearn",
    "drift_half_lives": "half-lives that evidence ages at once where drift was found",
    "drift_confidence": "ADWIN's delta: a smaller one raises fewer alarms, and later",
    "drift_tolerance": "Page-Hinkley's delta: falls of the hit rate below this are none",
    "drift_threshold": "Page-Hinkley's lambda: hits missing beyond that until it raises an alarm",
    "objective_click": "what a click is worth to the final ranking",
    "objective_purchase": "what a purchase is worth to the final ranking",
    "objective_value": "what a purchase of mean value is worth to it, others in proportion",
    "outcome_window_seconds": "time in which a purchase counts as what a click led to",
}

# Inclusive; what is not named here may be anything that is not negative.
ENGINE_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "users": (1, 100_000_000),
    "items": (1, 10_000_000),
    "sessions": (1, 100_000_000),
    "history_length": (1, 1024),
    "session_gap_seconds": (1, 366 * 86400),
    "admit_items_after": (1, 100),
    "dedupe_events": (0, 100_000_000),
    "evaluate_one_in": (1, 1_000_000),
    "blend_warmup_events": (0, 10**12),
    "candidates": (1, 10_000),
    "hidden_units": (1, 1024),
    "blend_rate": (0, 10),
    "neighbours": (1, 100_000),
    "neighbour_sessions": (1, 100_000),
    "neighbour_half_life_seconds": (1, 100 * 366 * 86400),
    "neighbour_query_scale": (0.1, 1e6),
    "neighbour_idf_power": (0, 10),
    "neighbour_length_power": (0, 10),
    "neighbour_vote_scale": (0.1, 1e6),
    "neighbour_vote_idf_power": (0, 10),
    "neighbour_after_scale": (0.1, 1e6),
    "neighbour_before_scale": (0.1, 1e6),
    "transition_half_lives_seconds": (1, 100 * 366 * 86400),
    "transition_slots": (1, 4096),
    "factor_rate": (0, 10),
    "factor_correction": (0, 2),
    "factor_recent": (1, 100_000_000),
    "content_candidates": (0, 256),
    "popularity_half_lives_seconds": (1, 100 * 366 * 86400),
    "drift_action": (0, 1),
    "drift_half_lives": (0, 100),
    "drift_confidence": (1e-12, 0.5),
    "drift_tolerance": (0, 1),
    "drift_threshold": (1, 1_000_000),
    "objective_click": (0, 1_000_000),
    "objective_purchase": (0, 1_000_000),
    "objective_value": (0, 1_000_000),
    "outcome_window_seconds": (60, 366 * 86400),
}

OTHER_VARIABLES = {
    "EVERLEARN_SETTINGS": "the settings file",
    "EVERLEARN_DATA": "folder of the data sets that tests and benchmarks read",
    "EVERLEARN_CACHE": "folder of fetched files, such as Apache Kafka's",
}
