"""Reading a judge's reply, and scoring the verdicts on a prompt's samples; no model, no files."""

from collections.abc import Iterable, Sequence

from croco.digests import derive_seed

MARKS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
ORDERS = ("answer_first", "baseline_first")
WORTH = {"win": 1.0, "tie": 0.5, "loss": 0.0}
UNPARSEABLE = "unparseable"
NOT_ASKED = "not_asked"  # the judge saw the answers in the other order only
CUT, NO_VERDICT = "cut", "no_verdict"


def parse_reply(text: str, finish_reason: str) -> tuple[str | None, str | None]:
    """(A, B or tie; None) from the last non-empty line of a reply, or (None, why it has no verdict).

    The line must be a mark and nothing else. A reply that was cut off (finish_reason is not stop) has no verdict,
    because the judge was not done.
    """
    if finish_reason != "stop":
        return None, CUT
    lines = [line.strip() for line in text.split("\n")]
    choice = MARKS.get(next((line for line in reversed(lines) if line), ""))
    return choice, None if choice else NO_VERDICT


def see_from_tuned(choice: str | None, order: str) -> str:
    """win, tie or loss of the tuned model, which is A where its answer came first; unparseable for None."""
    if choice is None:
        return UNPARSEABLE
    if choice == "tie":
        return "tie"
    return "win" if (choice == "A") == (order == "answer_first") else "loss"


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None, or None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def score_samples(verdicts: dict[str, list[str]]) -> list[float | None]:
    """For each sample the mean of both orders in [0, 1], or None where neither can be read.

    Args:
        verdicts: {order: [win, tie, loss, unparseable or not_asked, one per sample]} with both ORDERS.
    """
    return [
        mean([WORTH.get(verdict) for verdict in of_sample])
        for of_sample in zip(*(verdicts[order] for order in ORDERS), strict=True)
    ]


def draw_order(prompt_id: str) -> str:
    """One of ORDERS, which a hash of the prompt's id chooses."""
    return ORDERS[derive_seed("order", prompt_id, bits=1)]


def score_single_order(verdicts: dict[str, list[str]], prompt_id: str) -> float | None:
    """The mean over samples in the order of draw_order; None if no verdict can be read."""
    return mean([WORTH.get(verdict) for verdict in verdicts[draw_order(prompt_id)]])


def score_strict(
    verdicts: dict[str, list[str]],
    languages: Sequence[str | None],
    baseline_languages: Sequence[str | None],
    language: str,
) -> float | None:
    """As the mean of score_samples, but an answer that is not in ``language`` loses, and two such answers tie.

    ``languages`` and ``baseline_languages`` are a code or None per sample; None counts as the right language.
    """
    scores = []
    for score, *codes in zip(score_samples(verdicts), languages, baseline_languages, strict=True):
        ours_wrong, theirs_wrong = (code not in (None, language) for code in codes)
        scores.append(0.5 + 0.5 * (theirs_wrong - ours_wrong) if ours_wrong or theirs_wrong else score)
    return mean(scores)
