"""A preference pair and a judged answer as the report page shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from croco.digests import derive_seed
from croco.evaluation.verdicts import NOT_ASKED, UNPARSEABLE
from croco.records import rows

LONGEST = 2000  # characters of a text
ORDERS = ("answer_first", "baseline_first")
DEPENDS_ON_ORDER = "depends on the order"


def read_chats(path: Path) -> dict[str, list]:
    """{prompt_id: messages} of a prompt file; empty where there is none."""
    return {line["prompt_id"]: line["messages"] for line in rows(path)} if path.is_file() else {}


def draw(lines: Sequence[dict], count: int) -> list[dict]:
    """``count`` lines with the lowest hash of the prompt id."""
    return sorted(lines, key=lambda line: (derive_seed("examples", line["prompt_id"]), line["prompt_id"]))[:count]


def cut(text: str) -> str:
    """The first LONGEST characters, and how many more there are."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"


def say(messages: list[dict] | None) -> str:
    """The messages' texts as one text, shortened."""
    return cut("\n\n".join(message["content"] for message in messages or []))


def first_text(answer: dict) -> str:
    """The first sample of a line of answers; empty where there is none."""
    return (answer["responses"] or [{"text": ""}])[0]["text"] or ""


def describe_pair(run: str, language: str, pair: dict) -> dict[str, Any]:
    """A pair as the page shows it: both answers side by side, with their rewards."""
    same = pair["chosen_language"] == pair["rejected_language"]
    return {
        "kind": "pair",
        "run": run,
        "language": language,
        "id": str(pair["prompt_id"]),
        "verdict": "one language" if same else "two languages",
        "prompt": say(pair["prompt"]),
        "left": say(pair["chosen"]),
        "right": say(pair["rejected"]),
        "facts": f"chosen {pair['chosen_reward']:.3f} ({pair['chosen_language']}), "
        f"rejected {pair['rejected_reward']:.3f} ({pair['rejected_language']}), pool of {pair['pool_size']}",
    }


def describe_answer(
    run: str, language: str, line: dict, ours: dict, theirs: dict, messages: list[dict]
) -> dict[str, Any]:
    """The first sample of a prompt, with its verdicts in both orders if ``line`` is one of a judge's."""
    return {
        "kind": "answer",
        "run": run,
        "language": language,
        "id": str(line["prompt_id"]),
        "prompt": say(messages),
        "left": cut(first_text(ours)),
        "right": cut(first_text(theirs)),
        **(
            describe_verdict(line)
            if "verdicts" in line
            else {"verdict": "not judged", "facts": f"first sample of {max(1, len(ours['responses']))}"}
        ),
    }


def describe_verdict(line: dict) -> dict[str, str]:
    """The verdicts on the first sample of a prompt in the orders that were asked for, and what the judge replied."""
    first = list_verdicts(line)
    replies = [((line.get("replies") or {}).get(name) or [None])[0] for name in ORDERS]
    samples = max(1, len(line["verdicts"][ORDERS[0]]))
    score = "none" if line["score"] is None else f"{line['score']:.3f}"
    return {
        "verdict": agree(first),
        "facts": f"first sample of {samples}; tuned first: {first[0]}, base first: {first[1]}; score of the prompt {score}",
        **({"reply": cut("\n\n".join(reply for reply in replies if reply))} if any(replies) else {}),
    }


def list_verdicts(line: dict) -> list[str]:
    """The verdicts on the first sample, with the tuned answer first and with the base's first; "none" where there is none."""
    return [verdicts[0] if verdicts else "none" for verdicts in (line["verdicts"][name] for name in ORDERS)]


def agree(verdicts: Sequence[str]) -> str:
    """The verdict of the orders that were asked for, or that it depends on the order; an unreadable one decides nothing."""
    asked = {verdict for verdict in verdicts if verdict != NOT_ASKED}
    asked = asked - {UNPARSEABLE} or asked
    return asked.pop() if len(asked) == 1 else DEPENDS_ON_ORDER
