"""scripts/build_pairs.py: pools over languages, hygiene, and a ledger that adds up."""

import json

import pytest
from conftest import rows, script, write_rows


def make_files(folder, languages, rewards, texts=None, finish="stop", reference="R"):
    """Prompt, generation and score files; ``rewards[language]`` is a list of lists, one a prompt."""
    files = {"prompts": [], "generations": [], "scores": []}
    for language in languages:
        ids = [f"p{i}" for i in range(len(rewards[language]))]
        prompts, generations, scores = [], [], []
        for i, prompt_id in enumerate(ids):
            messages = [{"role": "user", "content": f"{language} question {i}"}]
            prompts.append({"prompt_id": prompt_id, "language": language, "messages": messages, "reference": reference, "source": "t", "skip": None})  # fmt: skip
            answers = texts[language][i] if texts else [f"{language}{i}-{j}" for j in range(len(rewards[language][i]))]
            responses = [{"text": t, "finish_reason": finish, "n_tokens": 1, "token_digest": "x"} for t in answers]
            generations.append({"prompt_id": prompt_id, "language": language, "skip": None, "responses": responses})  # fmt: skip
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
    references, ledger = build(tmp_path, {"prompts": files["prompts"]}, "--target", "reference")
    assert len(references) == 2 and {row["reward"] for row in references} == {None}
    assert ledger["formed_by_language"] == {"en": 1, "de": 1}


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
    assert build(tmp_path, files, *options, check=False).returncode == 2
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
