"""scripts/build_pairs.py: pools over languages, hygiene, and a ledger that adds up."""

import json
import math
from collections import Counter

import pytest
from conftest import rows, script, write_rows

from croco.digests import derive_seed
from croco.records import digest_responses


def make_files(folder, languages, rewards, texts=None, finish="stop", reference="R", skip=()):
    """Prompt, generation and score files; ``rewards[language]`` is a list of lists, one a prompt.

    ``skip`` holds (language, prompt number) of the prompts that are skipped.
    """
    files = {"prompts": [], "generations": [], "scores": []}
    for language in languages:
        ids = [f"p{i}" for i in range(len(rewards[language]))]
        prompts, generations, scores = [], [], []
        for i, prompt_id in enumerate(ids):
            messages = [{"role": "user", "content": f"{language} question {i}"}]
            prompts.append({"prompt_id": prompt_id, "language": language, "messages": messages, "reference": reference, "source": "t", "skip": "translation_empty" if (language, i) in skip else None})  # fmt: skip
            answers = texts[language][i] if texts else [f"{language}{i}-{j}" for j in range(len(rewards[language][i]))]
            responses = [
                {"text": t, "finish_reason": finish, "n_tokens": 1, "token_digest": f"digest of {t}"} for t in answers
            ]
            generations.append({"prompt_id": prompt_id, "language": language, "skip": prompts[-1]["skip"], "responses": responses})  # fmt: skip
            scores.append({"prompt_id": prompt_id, "language": language, "rewards": rewards[language][i]})
        for name, values in (("prompts", prompts), ("generations", generations), ("scores", scores)):
            files[name].append(write_rows(folder / language / f"{name}.jsonl", values))
    return files


def build(folder, files, *options, check=True):
    arguments = [part for name, paths in files.items() for part in (f"--{name}", *paths)]
    done = script("build_pairs", *arguments, *options, "--output", folder / "pairs.jsonl", "--ledger", folder / "ledger.json", check=check)  # fmt: skip
    return done if not check else (rows(folder / "pairs.jsonl"), json.loads((folder / "ledger.json").read_text()))


def test_one_language(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[0.0, 3.0, 1.0, -2.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]})
    pairs, ledger = build(tmp_path, files)
    assert [pair["prompt_id"] for pair in pairs] == ["p0"]
    pair = pairs[0]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("en0-1", "en0-3")
    assert (pair["chosen_reward"], pair["rejected_reward"], pair["pool_size"]) == (3.0, -2.0, 6)
    assert pair["target"] == pytest.approx(pair["pool_mean"] - 2 * pair["pool_std"])
    assert ledger["prompts"] == 2 and ledger["formed"] == 1 and ledger["no_pair"] == {"no_lower_reward": 1}
    assert ledger["rejected_is_minimum"] == 1.0


def test_multilingual_pool_crosses_languages(tmp_path):
    files = make_files(tmp_path, ["en", "de"], {"en": [[2.0, 1.0, 0.9]], "de": [[0.0, -5.0, 0.2]]})
    pairs, ledger = build(tmp_path, files)
    assert (pairs[0]["chosen_language"], pairs[0]["rejected_language"], pairs[0]["prompt_language"]) == (
        "en",
        "de",
        "en",
    )
    assert pairs[0]["prompt"][0]["content"] == "en question 0" and pairs[0]["pool_size"] == 6
    assert ledger["languages"]["en"]["chosen"] == 1 and ledger["languages"]["de"]["rejected"] == 1


def test_null_scores_leave_the_pool_and_are_counted(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[None, 2.0, 1.0, None], [None, 1.0, None, None]]})
    pairs, ledger = build(tmp_path, files, "--rejected", "min")
    assert [(pair["prompt_id"], pair["pool_size"]) for pair in pairs] == [("p0", 2)]
    assert ledger["no_pair"] == {"pool_too_small": 1}
    counts = ledger["languages"]["en"]
    assert counts["left_out"] == {"null_reward": 5}
    assert counts["responses"] == counts["eligible"] + 5 == 8


def test_hygiene_filters_are_switchable_and_counted(tmp_path):
    texts = {"en": [["good", "  ", "fine", "good"]]}
    files = make_files(tmp_path, ["en"], {"en": [[2.0, -9.0, 1.0, 2.0]]}, texts)
    pairs, ledger = build(tmp_path, files, "--rejected", "min")
    assert pairs[0]["rejected_reward"] == -9.0 and ledger["languages"]["en"]["duplicates"] == 1
    pairs, ledger = build(tmp_path, files, "--rejected", "min", "--hygiene", "empty")
    assert pairs[0]["rejected_reward"] == 1.0 and ledger["languages"]["en"]["left_out"] == {"empty": 1}
    cut = make_files(tmp_path / "cut", ["en"], {"en": [[2.0, 1.0]]}, finish="length")
    done = build(tmp_path, cut, "--hygiene", "truncated", check=False)
    assert done.returncode == 1 and "pool_too_small" in done.stderr and "Traceback" not in done.stderr


def test_pool_size_takes_the_first_responses(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[1.0, 0.0, 9.0, -9.0]]})
    pairs, _ = build(tmp_path, files, "--rejected", "min", "--pool-size", 2)
    assert (pairs[0]["chosen_reward"], pairs[0]["rejected_reward"]) == (1.0, 0.0)
    done = build(tmp_path, files, "--pool-size", 5, check=False)
    assert done.returncode == 1 and "pool-size" in done.stderr


def test_random_pairs_ignore_rewards_but_not_the_seed(tmp_path):
    rewards = {"en": [[float(j) for j in range(10)]] * 60}
    files = make_files(tmp_path, ["en"], rewards)
    first, _ = build(tmp_path, files, "--rejected", "random", "--seed", 1)
    again, _ = build(tmp_path, files, "--rejected", "random", "--seed", 1)
    other, _ = build(tmp_path, files, "--rejected", "random", "--seed", 2)
    assert first == again != other
    higher = sum(pair["chosen_reward"] > pair["rejected_reward"] for pair in first)
    assert 15 <= higher <= 45
    assert all(pair["target"] is None for pair in first)


def test_best_and_reference_targets(tmp_path):
    files = make_files(tmp_path, ["en", "de"], {"en": [[1.0, 4.0]], "de": [[5.0, 0.0]]})
    best, _ = build(tmp_path, files, "--target", "best")
    assert [(row["completion"][0]["content"], row["reward"]) for row in best] == [("de0-0", 5.0)]
    references, ledger = build(tmp_path, {"prompts": files["prompts"]}, "--target", "reference", "--per-prompt", "all")
    assert len(references) == 2 and {row["reward"] for row in references} == {None}
    assert ledger["formed_by_language"] == {"en": 1, "de": 1} and ledger["prompts"] == 2


def test_references_are_taken_in_one_language_a_prompt(tmp_path):
    count = 40
    codes = ["en", "de", "nl"]
    files = make_files(tmp_path, codes, {code: [[1.0, 0.0]] * count for code in codes}, skip={("de", 0), ("nl", 0)})
    prompts = {"prompts": files["prompts"]}
    lines, ledger = build(tmp_path, prompts, "--target", "reference")
    assert [line["prompt_id"] for line in lines] == [f"p{i}" for i in range(count)]
    assert ledger["prompts"] == ledger["formed"] == count and ledger["no_pair"] == {}
    assert ledger["formed_by_language"]["en"] >= 1 and min(ledger["formed_by_language"].values()) >= count // 6
    for code, counts in ledger["languages"].items():
        assert counts["prompts"] == counts["chosen"] + sum(counts["skipped"].values())
        assert counts["skipped"].get("translation_empty", 0) == (code != "en")
    assert build(tmp_path, prompts, "--target", "reference")[0] == lines
    assert build(tmp_path, prompts, "--target", "reference", "--seed", 1)[0] != lines


def test_the_language_of_a_reference_depends_on_its_prompt_alone(tmp_path):
    """Not on the order of the files, on other prompts, nor on languages that were not drawn."""
    count, codes = 60, ["en", "de", "nl"]
    files = make_files(tmp_path, codes, {code: [[1.0]] * count for code in codes})["prompts"]
    lacking = {"de": range(0, count, 3), "nl": range(0, count, 2)}
    for code, path in zip(codes, files, strict=True):
        prompts = rows(path)
        for number in lacking.get(code, ()):
            prompts[number]["reference"] = None if number % 4 else "\u200b"
        write_rows(path, prompts)

    def draw(*some):
        lines, ledger = build(tmp_path, {"prompts": some}, "--target", "reference")
        return {line["prompt_id"]: line["prompt"][0]["content"][:2] for line in lines}, ledger

    drawn, ledger = draw(*files)
    assert len(drawn) == count == ledger["prompts"] == ledger["formed"] and ledger["no_pair"] == {}
    for code, counts in ledger["languages"].items():
        assert counts["skipped"].get("no_reference", 0) == len(lacking.get(code, ()))
        assert not any(drawn[f"p{number}"] == code for number in lacking.get(code, ()))
        assert counts["prompts"] == count == counts["chosen"] + sum(counts["skipped"].values())
        assert counts["chosen"] == list(drawn.values()).count(code) == ledger["formed_by_language"][code] > count / 8
    assert draw(*files[::-1])[0] == drawn
    without, _ = draw(*files[:2])
    assert all(without[prompt] == code for prompt, code in drawn.items() if code != "nl")
    alone, ledger = draw(files[2])
    assert len(alone) == count // 2 and ledger["no_pair"] == {"no_reference": count // 2}
    for path in files:
        write_rows(path, rows(path)[count // 2 :])
    assert draw(*files)[0] == {prompt: code for prompt, code in drawn.items() if int(prompt[1:]) >= count // 2}


@pytest.mark.parametrize("damage", ["order", "missing", "rewards", "field", "type", "stale"])
def test_files_out_of_step_are_refused(tmp_path, damage):
    files = make_files(tmp_path, ["en"], {"en": [[1.0, 0.0], [1.0, 0.0]]})
    scores = rows(files["scores"][0])
    scores = {
        "order": scores[::-1],
        "missing": scores[:1],
        "rewards": [{**scores[0], "rewards": [1.0]}, scores[1]],
        "field": [scores[0], {"prompt_id": "p1", "language": "en"}],
        "type": [{**scores[0], "rewards": ["high", 1.0]}, scores[1]],
        "stale": scores,
    }[damage]
    write_rows(files["scores"][0], scores)
    if damage == "stale":
        write_rows(files["generations"][0], [{**line, "prompt_digest": "x"} for line in rows(files["generations"][0])])
    (tmp_path / "pairs.jsonl").write_text("finished before\n")
    done = build(tmp_path, files, "--rejected", "min", check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Remedy: " in done.stderr
    assert (tmp_path / "pairs.jsonl").read_text() == "finished before\n"


@pytest.mark.parametrize("manifest", ['{"model": "x"}', '{"inputs": []}'])
def test_a_manifest_of_someone_else_beside_the_responses_names_no_policy(tmp_path, manifest):
    files = make_files(tmp_path, ["de"], {"de": [[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]})
    files["generations"][0].with_suffix(".manifest.json").write_text(manifest)
    pairs, _ = build(tmp_path, files)
    assert len(pairs) == 1


def test_memory_does_not_grow_with_the_prompts(tmp_path):
    """Gathering blocks and building pairs, of 300 prompts and of 6000, by the peak that the manifests report."""
    peaks = {}
    for count in (300, 6000):
        folder = tmp_path / str(count)
        ids = [f"p{i}" for i in range(count)]
        prompts = write_rows(folder / "prompts.jsonl", ({"prompt_id": i, "language": "en", "messages": [{"role": "user", "content": i}]} for i in ids))  # fmt: skip
        parts = []
        for k, half in enumerate((ids[: count // 2], ids[count // 2 :])):
            responses = [{"text": f"answer {j} " * 10, "finish_reason": "stop"} for j in range(64)]
            parts.append(write_rows(folder / f"{k}.jsonl", ({"prompt_id": i, "language": "en", "responses": responses} for i in half)))  # fmt: skip
            parts[-1].with_suffix(".manifest.json").write_text('{"counts": {}, "inputs": {}}')
        scores = write_rows(folder / "scores.jsonl", ({"prompt_id": i, "language": "en", "rewards": list(range(64))} for i in ids))  # fmt: skip
        generations = folder / "generations.jsonl"
        script("gather", "--prompts", prompts, "--parts", *parts, "--output", generations)
        script("build_pairs", "--prompts", prompts, "--generations", generations, "--scores", scores, "--output", folder / "pairs.jsonl", "--ledger", folder / "ledger.json")  # fmt: skip
        assert len(rows(folder / "pairs.jsonl")) == count
        peaks[count] = [json.loads((folder / f"{name}.manifest.json").read_text())["peak_memory_mb"] for name in ("generations", "pairs")]  # fmt: skip
    assert all(large < small + 10 for small, large in zip(peaks[300], peaks[6000], strict=True)), peaks


def test_responses_in_another_language_leave_the_pool(tmp_path):
    """By the files of scripts/identify.py; None (cannot be told) stays; the option and the files go together."""
    files = make_files(tmp_path, ["de"], {"de": [[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]})
    (prompt,) = rows(files["prompts"][0])
    line = {"prompt_id": prompt["prompt_id"], "language": "de", "languages": ["en", "de", None, "de", "nl", "de"]}
    identified = write_rows(tmp_path / "languages.jsonl", [line])
    options = ("--rejected", "min", "--hygiene", "wrong_language")
    assert build(tmp_path, files, *options, check=False).returncode == 1
    (pair,), ledger = build(tmp_path, files, *options, "--identified", identified)
    assert (pair["chosen_reward"], pair["rejected_reward"], pair["pool_size"]) == (4.0, 0.0, 4)
    assert ledger["languages"]["de"]["left_out"] == {"wrong_language": 2}
    line["languages"].pop()
    done = build(tmp_path, files, *options, "--identified", write_rows(identified, [line]), check=False)
    assert done.returncode == 1 and "5 languages" in done.stderr


def test_degenerate_pools_are_advised_on(tmp_path):
    """mean - 2 sd of 8 responses always picks the minimum, and the ledger says so."""
    files = make_files(tmp_path, ["en"], {"en": [[0.1, 0.9, 0.5, 0.4, 0.6, 0.3, 0.7, 0.2]] * 3})
    _, ledger = build(tmp_path, files, "--rejected", "mean-2sd")
    assert ledger["rejected_is_minimum"] == 1 and "take more samples" in ledger["advice"]
    assert build(tmp_path, files, "--rejected", "min")[1].get("advice") is None


def contents(pairs):
    return [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]


def test_the_prompt_is_taken_in_the_language_asked_for(tmp_path):
    files = make_files(
        tmp_path,
        ["en", "de", "fr"],
        {"en": [[2.0, 1.0], [2.0, 1.0]], "de": [[0.0, -5.0], [0.0, -5.0]], "fr": [[1.0], []]},
        skip=[("fr", 1)],
    )
    for choice, language in (("chosen", "en"), ("rejected", "de"), ("de", "de")):
        pairs, _ = build(tmp_path, files, "--rejected", "min", "--prompt-language", choice)
        assert contents(pairs) == [("en0-0", "de0-1"), ("en1-0", "de1-1")]
        assert [pair["prompt"][0]["content"] for pair in pairs] == [f"{language} question {i}" for i in range(2)]
        assert {pair["prompt_language"] for pair in pairs} == {language}
    pairs, ledger = build(tmp_path, files, "--rejected", "min", "--prompt-language", "fr")
    assert [(pair["prompt_id"], pair["prompt_language"]) for pair in pairs] == [("p0", "fr")]
    assert ledger["no_pair"] == {"prompt_skipped": 1} and ledger["prompts"] == 2
    done = build(tmp_path, files, "--prompt-language", "mt", check=False)
    assert done.returncode == 1 and "no prompt file is in 'mt'" in done.stderr and "en, de, fr" in done.stderr


def test_the_prompt_language_of_random_pairs(tmp_path):
    files = make_files(tmp_path, ["en", "de"], {language: [[1.0, 0.0]] * 40 for language in ("en", "de")})
    pairs, _ = build(tmp_path, files, "--rejected", "random", "--prompt-language", "rejected")
    assert {pair["chosen_language"] == pair["rejected_language"] for pair in pairs} == {True, False}
    assert all(pair["prompt_language"] == pair["rejected_language"] for pair in pairs)


def test_balance_chooses_the_languages_equally_often(tmp_path):
    rewards = {
        "en": [[9.0, 1.0], [9.0, 1.0], [9.0, 8.0], [9.0, 1.0], [None, None], [9.0, 3.0]],
        "de": [[5.0, 0.0], [5.0, 0.0], [3.0, 2.0], [3.0, 2.0], [1.0, 0.0], [9.0, 4.0]],
    }
    files = make_files(tmp_path, ["en", "de"], rewards)
    pairs, ledger = build(tmp_path, files, "--rejected", "min", "--balance")
    # p0 en is best; p1 de was chosen less; p2 both once, en is best; p3 de; p4 de alone; p5 en was chosen less.
    assert contents(pairs) == [
        ("en0-0", "de0-1"),
        ("de1-0", "de1-1"),
        ("en2-0", "de2-1"),
        ("de3-0", "en3-1"),
        ("de4-0", "de4-1"),
        ("en5-0", "en5-1"),
    ]
    assert ledger["formed_by_language"] == {"en": 3, "de": 3} and ledger["languages"]["de"]["chosen"] == 3
    short = make_files(tmp_path / "short", ["en", "de"], {name: values[:4] for name, values in rewards.items()})
    assert build(tmp_path / "short", short, "--rejected", "min", "--balance")[0] == pairs[:4]
    best, ledger = build(tmp_path, files, "--target", "best", "--balance")
    assert [row["completion"][0]["content"] for row in best] == [chosen for chosen, _ in contents(pairs)]
    assert ledger["formed_by_language"] == {"en": 3, "de": 3}


def test_balance_goes_to_the_next_language_where_one_forms_no_pair(tmp_path):
    """German's only response is always the worst of the pool, so nothing can be rejected below it."""
    files = make_files(tmp_path, ["en", "de"], {"en": [[4.0]] * 6, "de": [[1.0]] * 6})
    pairs, ledger = build(tmp_path, files, "--balance", "--rejected", "min")
    assert len(pairs) == 6 and not ledger["no_pair"]
    assert {pair["chosen_language"] for pair in pairs} == {"en"}


def test_a_match_takes_the_nearest_pair_not_the_nearest_chosen(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[-3.0, 1.0, 1.3], [5.0, 6.0, 7.0, 8.0]]})
    wanted, _ = build(tmp_path, files, "--rejected", "min")
    for row, rewards in zip(wanted, ((1.1, 0.9), (5.1, 4.9)), strict=True):
        row["chosen_reward"], row["rejected_reward"] = rewards
    others = write_rows(tmp_path / "others.jsonl", wanted)
    pairs, _ = build(tmp_path, files, "--match", others)
    assert [(pair["chosen_reward"], pair["rejected_reward"]) for pair in pairs] == [(1.3, 1.0), (6.0, 5.0)]


def test_balance_breaks_ties_by_file_order_and_counts_formed_pairs_only(tmp_path):
    files = make_files(tmp_path, ["en", "de"], {"en": [[4.0, 4.0], [4.0, 3.0]], "de": [[4.0, 4.0], [4.0, 1.0]]})
    pairs, ledger = build(tmp_path, files, "--balance", "--rejected", "min")
    assert contents(pairs) == [("en1-0", "de1-1")] and ledger["no_pair"] == {"no_lower_reward": 1}


def test_standardised_rewards_choose_and_raw_rewards_are_written(tmp_path):
    # en: mean 10, std 2; de: mean 0, std sqrt(8).
    rewards = {"en": [[12.0, 8.0], [12.0, 8.0]], "de": [[4.0, 0.0], [0.0, -4.0]]}
    files = make_files(tmp_path, ["en", "de"], rewards)
    pairs, ledger = build(tmp_path, files, "--standardise", "--rejected", "min")
    assert ledger["standardised"] == {"en": {"mean": 10.0, "std": 2.0}, "de": {"mean": 0.0, "std": math.sqrt(8)}}
    assert contents(pairs) == [("de0-0", "en0-1"), ("en1-0", "de1-1")]
    assert [(pair["chosen_reward"], pair["rejected_reward"]) for pair in pairs] == [(4.0, 8.0), (12.0, -4.0)]
    assert [pair["target"] for pair in pairs] == pytest.approx([-1, -math.sqrt(2)])
    assert pairs[0]["pool_mean"] == pytest.approx((1 - 1 + math.sqrt(2) + 0) / 4)
    best, _ = build(tmp_path, files, "--target", "best", "--standardise")
    assert [(row["completion"][0]["content"], row["reward"]) for row in best] == [("de0-0", 4.0), ("en1-0", 12.0)]


def test_standardising_takes_only_the_mean_off_constant_rewards(tmp_path):
    rewards = {"en": [[5.5, 5.5], [None, 5.5]], "de": [[1.0, -1.0], [1.0, -1.0]], "fr": [[None], [None]]}
    files = make_files(tmp_path, list(rewards), rewards)
    pairs, ledger = build(tmp_path, files, "--standardise", "--rejected", "q1", "--balance")
    assert ledger["standardised"] == {
        "en": {"mean": 5.5, "std": 0.0},
        "de": {"mean": 0.0, "std": 1.0},
        "fr": {"mean": None, "std": None},
    }
    assert contents(pairs) == [("de0-0", "en0-0"), ("en1-1", "de1-1")]
    assert ledger["languages"]["en"]["prompts"] == 2  # counted in one of the two passes


def test_rejected_from_the_chosen_language(tmp_path):
    rewards = {"en": [[3.0, 1.0, 0.0], [3.0], [3.0, 3.0]], "de": [[2.0, -5.0], [2.0, 1.0], [2.0, 1.0]]}
    files = make_files(tmp_path, ["de", "en"], rewards)
    pairs, ledger = build(tmp_path, files, "--rejected-from", "chosen_language", "--rejected", "q1")
    # The quartile of 0, 1, 3 is 0.5, as near to 1 as to 0: the first in the file wins. That of the whole pool is 0.
    assert contents(pairs) == [("en0-0", "en0-1")]
    assert (pairs[0]["target"], pairs[0]["pool_size"], pairs[0]["pool_mean"]) == (0.5, 3, pytest.approx(4 / 3))
    assert ledger["no_pair"] == {"pool_too_small": 1, "no_lower_reward": 1}
    assert ledger["languages"]["en"]["rejected"] == 1 and ledger["rejected_is_minimum"] == 0


def test_random_pairs_in_one_language_are_equally_likely(tmp_path):
    """en has 6 ordered pairs of different texts, de 6, mt 2, fr none (4 standard errors)."""
    count = 2100
    texts = {"en": ["a", "b", "c"], "fr": ["z", "z"], "mt": ["u", "v"], "de": ["w", "x", "y"]}
    texts = {language: [own] * count for language, own in texts.items()}
    rewards = {language: [[0.0] * len(own[0])] * count for language, own in texts.items()}
    files = make_files(tmp_path, list(texts), rewards, texts)
    pairs, ledger = build(tmp_path, files, "--rejected", "random", "--rejected-from", "chosen_language")
    drawn = Counter(contents(pairs))
    assert len(drawn) == 14 and drawn.total() == count
    assert all(abs(n - count / 14) < 4 * math.sqrt(count / 14 * 13 / 14) for n in drawn.values()), drawn
    assert ledger["separation"]["same_language"] == 1 and {pair["pool_size"] for pair in pairs} == {2, 3}


def test_random_pairs_in_one_language_need_two_texts_there(tmp_path):
    texts = {"en": [["a"], ["a", "a"], ["a", "b"]], "de": [["x"], ["x"], ["x"]]}
    rewards = {language: [[0.0] * len(own) for own in lists] for language, lists in texts.items()}
    files = make_files(tmp_path, list(texts), rewards, texts)
    pairs, ledger = build(tmp_path, files, "--rejected", "random", "--rejected-from", "chosen_language")
    assert [pair["prompt_id"] for pair in pairs] == ["p2"]
    assert ledger["no_pair"] == {"pool_too_small": 1, "all_texts_equal": 1}


def other_pairs(path, rewards):
    """A pairs file with {prompt_id: (chosen_reward, rejected_reward)}."""
    chats = {"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}  # fmt: skip
    return write_rows(path, [{"prompt_id": i, **chats, "chosen_reward": c, "rejected_reward": r, "pool_size": 2} for i, (c, r) in rewards.items()])  # fmt: skip


def test_match_finds_the_responses_with_the_nearest_rewards(tmp_path):
    rewards = {"en": [[9.0, 5.0, 1.0], [2.0, 1.0], [3.0, 3.0], [4.0, 0.0]], "de": [[4.0, 6.0], [8.0, 0.0], [3.0], []]}
    files = make_files(tmp_path, ["en", "de"], rewards)
    other = other_pairs(tmp_path / "other.jsonl", {"p0": (5.0, 3.0), "p2": (3.0, 1.0), "p3": (9.0, -1.0)})
    pairs, ledger = build(tmp_path, files, "--match", other)
    assert contents(pairs) == [("en0-1", "de0-0"), ("en3-0", "en3-1")]
    assert [pair["target"] for pair in pairs] == [3.0, -1.0]
    assert ledger["rejected"] == "match" and "advice" not in ledger
    assert ledger["no_pair"] == {"no_pair_to_match": 1, "no_lower_reward": 1}
    assert ledger["match"] == {
        "pairs": 3,
        "chosen_mean": 4.5,
        "chosen_mean_matched_to": 7.0,
        "chosen_mae": 2.5,
        "rejected_mean": 2.0,
        "rejected_mean_matched_to": 1.0,
        "rejected_mae": 1.0,
    }
    pairs, ledger = build(tmp_path, files, "--match", other, "--caliper", 1)
    assert contents(pairs) == [("en0-1", "de0-0")]
    assert ledger["no_pair"] == {"no_pair_to_match": 1, "no_lower_reward": 1, "no_match": 1}
    assert (ledger["match"]["pairs"], ledger["match"]["rejected_mae"]) == (3, 1.0)
    pairs, _ = build(tmp_path, files, "--match", other, "--rejected-from", "chosen_language", "--caliper", 5)
    assert contents(pairs) == [("en0-1", "en0-2"), ("en3-0", "en3-1")]


@pytest.mark.parametrize(("name", "field"), [("scores", "rewards"), ("identified", "languages")])
def test_rewards_and_languages_of_other_responses_are_refused(tmp_path, name, field):
    """Of the same number, to the same prompt; a file that does not say what it is of is taken."""
    files = make_files(tmp_path, ["en"], {"en": [[5.0, 1.0]]})
    (generation,) = rows(files["generations"][0])
    line = {"prompt_id": "p0", "language": "en", "rewards": [5.0, 1.0], "languages": ["en", "en"]}
    for responses, code in ((generation["responses"], 0), (generation["responses"][::-1], 1)):
        known = line | {"responses_digest": digest_responses({"responses": responses})}
        files[name] = [write_rows(tmp_path / "known.jsonl", [known])]
        done = build(tmp_path, files, "--hygiene", "wrong_language" if name == "identified" else "empty", check=False)
        assert done.returncode == code, done.stderr
    assert f"p0: the {field} are of other responses" in done.stderr and "Traceback" not in done.stderr


def test_the_caliper_holds_for_the_rejected_too(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[5.0, 1.0], [5.0, 1.0]]})
    other = other_pairs(tmp_path / "other.jsonl", {"p0": (5.0, 3.5), "p1": (5.0, 3.0)})
    pairs, ledger = build(tmp_path, files, "--match", other, "--caliper", 2)
    assert [pair["prompt_id"] for pair in pairs] == ["p1"] and ledger["no_pair"] == {"no_match": 1}


def test_matching_a_pool_with_its_own_pairs_gives_the_same_rewards(tmp_path):
    rewards = {"en": [[9.0, 5.0, 1.0], [2.0], [3.0, 3.0]], "de": [[4.0, 6.0], [None], [3.0, -7.0]]}
    files = make_files(tmp_path, ["en", "de"], rewards)
    pairs, _ = build(tmp_path, files)
    own = write_rows(tmp_path / "own.jsonl", pairs)
    again, ledger = build(tmp_path, files, "--match", own, "--caliper", 0)
    assert contents(again) == contents(pairs) and ledger["no_pair"] == {"pool_too_small": 1}
    assert ledger["match"]["chosen_mae"] == ledger["match"]["rejected_mae"] == 0
    manifest = json.loads((tmp_path / "pairs.manifest.json").read_text())
    assert str(own) in manifest["inputs"] and manifest["options"]["rejected"] == "match"


@pytest.mark.parametrize("damage", ["unknown", "order", "null", "missing"])
def test_pairs_to_match_that_do_not_fit_are_refused(tmp_path, damage):
    files = make_files(tmp_path, ["en"], {"en": [[5.0, 1.0], [5.0, 1.0]]})
    wanted = {
        "unknown": {"p0": (5.0, 1.0), "p7": (5.0, 1.0)},
        "order": {"p1": (5.0, 1.0), "p0": (5.0, 1.0)},
        "null": {"p0": (5.0, 1.0), "p1": (5.0, None)},
        "missing": {},
    }[damage]
    other = other_pairs(tmp_path / "other.jsonl", wanted)
    if damage == "missing":
        other.unlink()
    done = build(tmp_path, files, "--match", other, check=False)
    said = {"unknown": "'p7'", "order": "'p0'", "null": "rejected_reward", "missing": "no such file"}[damage]
    assert done.returncode == 1 and said in done.stderr and "Remedy: " in done.stderr
    assert f"{other}:2" in done.stderr or damage == "missing"
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize("target", ["pair", "best", "reference", "prompts"])
def test_prompt_files_are_in_one_language_each(tmp_path, target):
    files = make_files(tmp_path, ["en", "de"], {"en": [[1.0, 0.0]] * 2, "de": [[1.0, 0.0]] * 2})
    mixed = {name: [tmp_path / "en" / f"{name}.mixed.jsonl"] for name in files}
    for name, (english, german) in files.items():
        write_rows(mixed[name][0], [rows(english)[0], rows(german)[1]])
    twice = {name: [paths[0], paths[0]] for name, paths in files.items()}
    for some, said in ((mixed, "mixed.jsonl:2, field language: de after en"), (twice, "en/prompts.jsonl:1, field language: en, as in")):  # fmt: skip
        some = some if target in ("pair", "best") else {"prompts": some["prompts"]}
        done = build(tmp_path, some, "--target", target, check=False)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert not (tmp_path / "pairs.jsonl").exists()


def test_prompts_for_online_tuning(tmp_path):
    count = 64
    skip = [("en", 0), ("de", 1), ("en", 2), ("de", 2)]
    files = make_files(tmp_path, ["en", "de"], {name: [[]] * count for name in ("en", "de")}, skip=skip)
    files = {"prompts": files["prompts"]}
    prompts, ledger = build(tmp_path, files, "--target", "prompts", "--seed", 5)
    assert [row["prompt_id"] for row in prompts] == [f"p{i}" for i in range(count) if i != 2]
    assert all(set(row) == {"prompt_id", "prompt", "language"} for row in prompts)
    assert [row["language"] for row in prompts[:2]] == ["de", "en"]
    for i, row in enumerate(prompts[2:], start=3):
        assert row["language"] == min(("de", "en"), key=lambda code: derive_seed(5, "online-prompt", f"p{i}", code))
        assert row["prompt"] == [{"role": "user", "content": f"{row['language']} question {i}"}]
    counts = Counter(row["language"] for row in prompts)
    assert min(counts.values()) > count / 4
    assert ledger["prompts"] == count and ledger["formed"] == count - 1 and ledger["no_pair"] == {"skipped": 1}
    assert ledger["formed_by_language"] == counts
    for language in ("en", "de"):
        assert ledger["languages"][language]["skipped"] == {"translation_empty": 2}
        assert ledger["languages"][language]["chosen"] == counts[language]
    turned, _ = build(tmp_path, {"prompts": files["prompts"][::-1]}, "--target", "prompts", "--seed", 5)
    assert turned == prompts, "whatever the order of the files"
    again, _ = build(tmp_path, files, "--target", "prompts", "--seed", 6)
    assert [row["language"] for row in again] != [row["language"] for row in prompts]
    alone, _ = build(tmp_path, {"prompts": files["prompts"][:1]}, "--target", "prompts")
    assert len(alone) == count - 2 and {row["language"] for row in alone} == {"en"}


def test_separation_says_how_well_language_alone_tells_the_chosen(tmp_path):
    # Chosen and rejected: en-de, en-de, en-de, de-en, en-en.
    rewards = {
        "en": [[3.0], [3.0], [3.0], [0.0], [3.0, 0.0]],
        "de": [[0.0], [0.0], [0.0], [3.0], [1.0]],
    }
    files = make_files(tmp_path, ["en", "de"], rewards)
    _, ledger = build(tmp_path, files, "--rejected", "min")
    found = ledger["separation"]
    assert found["pairs"] == {"en": {"de": 3, "en": 1}, "de": {"en": 1}}
    assert found["same_language"] == 0.2
    # Each en-de pair sees 2 others against 1 and is right, the de-en pair sees 3 against 0 and is wrong, en-en counts 1/2.
    assert found["accuracy"] == pytest.approx(3.5 / 5)
    assert found["chance_95"] == pytest.approx(4.5 / 5), "four pairs fall on one side in one of eight draws"
    alone = {name: paths[:1] for name, paths in files.items()}
    assert "separation" not in build(tmp_path, alone, "--rejected", "min")[1]


def test_options_change_nothing_in_a_pool_of_one_language(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[0.0, 3.0, 1.0, -2.0, 3.5, 0.5], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]]})
    plain, _ = build(tmp_path, files)
    for options in (("--balance",), ("--rejected-from", "chosen_language"), ("--prompt-language", "en")):
        assert build(tmp_path, files, *options)[0] == plain
    assert contents(build(tmp_path, files, "--standardise")[0]) == contents(plain)


def test_token_digests_of_what_was_sampled_stand_beside_the_rows(tmp_path):
    files = make_files(tmp_path, ["en"], {"en": [[0.0, 3.0], [1.0, 0.0]]})
    lines = rows(files["generations"][0])
    for response in lines[1]["responses"]:
        del response["token_digest"]
    write_rows(files["generations"][0], lines)
    pairs, _ = build(tmp_path, files, "--rejected", "min")
    assert list(pairs[0])[-3:] == ["target", "chosen_token_digest", "rejected_token_digest"]
    assert [(pair["chosen_token_digest"], pair["rejected_token_digest"]) for pair in pairs] == [
        ("digest of en0-1", "digest of en0-0"),
        (None, None),
    ]
    best, _ = build(tmp_path, files, "--target", "best")
    assert [row["token_digest"] for row in best] == ["digest of en0-1", None]
    references, _ = build(tmp_path, {"prompts": files["prompts"]}, "--target", "reference")
    assert {row["token_digest"] for row in references} == {None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--target best --rejected-from chosen_language", "--rejected-from goes with --target pair"),
        ("--target best --prompt-language rejected", "--prompt-language goes with --target pair"),
        ("--target best --match pairs.jsonl", "--match goes with --target pair"),
        ("--target reference --balance", "--balance goes with --target pair or best"),
        ("--target best --per-prompt all", "--per-prompt goes with --target reference"),
        ("--target prompts --standardise", "--standardise goes with --target pair or best"),
        ("--target prompts", "--generations goes with --target pair or best or reference"),
        ("--rejected random --balance", "--rejected random does not use rewards"),
        ("--rejected random --standardise", "--rejected random does not use rewards"),
        ("--match pairs.jsonl --rejected random", "--match takes"),
        ("--match pairs.jsonl --rejected mean-2sd", "--match takes"),
        ("--match pairs.jsonl --balance", "--match takes"),
        ("--match pairs.jsonl --standardise", "--match takes"),
        ("--caliper 1", "--caliper goes"),
        ("--match pairs.jsonl --caliper -1", "argument --caliper"),
        ("--match pairs.jsonl --caliper nan", "argument --caliper"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(tmp_path, options, said):
    files = make_files(tmp_path, ["en"], {"en": [[1.0, 0.0]]})
    done = build(tmp_path, files, *options.split(), check=False)
    assert done.returncode == 1 and said in done.stderr
