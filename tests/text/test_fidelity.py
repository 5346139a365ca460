"""Answers measured without a judge: scripts/fidelity.py, their rewards by scripts/score.py, rules/fidelity.smk."""

import csv
import json

import pytest
import yaml
from conftest import ROOT, planned, rows, script, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from croco.text.measures import count_languages, list_words, measure_repetition, measure_self_similarity, share_distinct

GERMAN = "Alle Menschen sind frei und gleich an Würde und Rechten geboren."
FRENCH = "Tous les êtres humains naissent libres et égaux en dignité et en droits."
TEXTS = st.text(alphabet="ab cdé.本ม", max_size=12)
WORDS = st.lists(st.sampled_from("abc"), max_size=12)


@pytest.fixture
def files(tmp_path):
    """Three German prompts: answered twice, skipped, answered with a loop that was cut off."""
    prompts = [{"prompt_id": f"p{i}", "language": "de", "messages": [{"role": "user", "content": f"Frage {i}"}]} for i in range(3)]  # fmt: skip
    answers = [
        {"prompt_id": "p0", "language": "de", "skip": None, "responses": [answer(GERMAN), answer(FRENCH)]},
        {"prompt_id": "p1", "language": "de", "skip": "prompt_too_long", "responses": []},
        {"prompt_id": "p2", "language": "de", "skip": None, "responses": [answer("Ja doch. " * 5, "length")]},
    ]
    return write_rows(tmp_path / "prompts.jsonl", prompts), write_rows(tmp_path / "answers.jsonl", answers)


def answer(text, finish_reason="stop"):
    return {"text": text, "finish_reason": finish_reason, "n_tokens": len(text.split())}


def measure(prompts, answers, output, check=True):
    return script(
        "fidelity", "--languages", "de", "--prompts", prompts, "--answers", answers, "--output", output, check=check
    )


def test_lines_say_what_the_answers_are(files, tmp_path):
    measure(*files, tmp_path / "out")
    first, skipped, loop = rows(tmp_path / "out" / "de.jsonl")
    assert first["languages"] == ["de", "fr"] and first["truncated"] == [False, False]
    assert first["language_fidelity"] == [True, False]
    assert first["n_tokens"] == [11, 13] and first["n_chars"] == [len(GERMAN), len(FRENCH)]
    assert first["repetition"] == [0, 0] and first["distinct_2"] == [1, 1] and 0 < first["self_similarity"] < 0.5
    assert skipped == {
        "prompt_id": "p1", "language": "de", "languages": [], "language_fidelity": [], "truncated": [], "n_tokens": [], "n_chars": [],
        "repetition": [], "distinct_2": [], "self_similarity": None, "skip": "prompt_too_long",
    }  # fmt: skip
    # Ten words, two of them in turn: 2 of 7 4-grams and 2 of 9 bigrams are different ones.
    assert loop["repetition"] == [pytest.approx(5 / 7)] and loop["distinct_2"] == [pytest.approx(2 / 9)]
    assert loop["truncated"] == [True] and loop["self_similarity"] is None
    counts = json.loads((tmp_path / "out" / "de.manifest.json").read_text())["counts"]
    found = [code for line in (first, loop) for code in line["languages"]]
    assert counts == {
        "prompts": 3, "skipped": 1, "responses": 3, "truncated": 1, "undetermined": found.count(None),
        "identified": {code: found.count(code) for code in sorted(set(found) - {None})},
    }  # fmt: skip


def test_answers_that_do_not_fit_the_prompts_end_with_one_message(files, tmp_path):
    prompts, answers = files
    good = rows(answers)
    other = [{**good[0], "prompt_id": "q0"}, *good[1:]]
    lacks = [{**good[0], "responses": [{"text": GERMAN, "finish_reason": "stop"}]}, *good[1:]]
    foreign = [{**good[0], "language": "nl"}, *good[1:]]
    altered = [{**good[0], "prompt_digest": "0" * 32}, *good[1:]]
    for broken, says in (
        (other, "'q0'"),
        (good[:-1], "'p2'"),
        (lacks, "field responses[0].n_tokens: missing"),
        (foreign, "p0 is in nl, not de"),
        (altered, "another text"),
    ):
        write_rows(answers, broken)
        done = measure(prompts, answers, tmp_path / "out", check=False)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, says
        assert "Remedy" in done.stderr and not (tmp_path / "out" / "de.jsonl").exists()
    done = measure(prompts, tmp_path / "none.jsonl", tmp_path / "out", check=False)
    assert done.returncode == 1 and "none.jsonl: no such file" in done.stderr


def test_answers_are_not_replaced_and_a_language_is_named_once(files, tmp_path):
    prompts, answers = files
    answers = answers.rename(tmp_path / "de.jsonl")
    before = answers.read_bytes()
    done = measure(prompts, answers, tmp_path, check=False)
    assert done.returncode == 1 and f"{answers} would be replaced" in done.stderr and answers.read_bytes() == before
    twice = ["--languages", "de", "de", "--prompts", prompts, prompts, "--answers", answers, answers]
    done = script("fidelity", *twice, "--output", tmp_path / "out", check=False)
    assert done.returncode == 1 and "de twice" in done.stderr and not (tmp_path / "out").exists()


def test_words_of_any_script():
    assert list_words("I can't say L'homme, 3.5!") == ["i", "can't", "say", "l'homme", "3.5"]
    assert list_words("日本語です。") == list("日本語です")
    assert list_words("한국어 문장: हिन्दी") == ["한국어", "문장", "हिन्दी"] and list_words("… !") == []


@given(WORDS, st.integers(1, 4))
def test_repetition_and_distinct_are_shares_that_add_up(words, n):
    repetition, distinct = measure_repetition(words, n), share_distinct(words, n)
    assert 0 <= repetition < 1 and (distinct is None) == (len(words) < n)
    assert repetition == (0 if distinct is None else 1 - distinct)
    ngrams = len(words) - n + 1
    assert distinct is None or round(distinct * ngrams) == len({"".join(words[i : i + n]) for i in range(ngrams)})


@given(WORDS.filter(lambda words: len(words) >= 4))
def test_saying_it_all_again_repeats_more(words):
    # The first repetition can bring n-grams across the seam; the next brings none.
    assert measure_repetition(words * 3) > measure_repetition(words * 2)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8), st.randoms())
def test_self_similarity_is_a_share_whatever_the_order(texts, random):
    found = measure_self_similarity(texts)
    if len(texts) < 2:
        assert found is None
        return
    assert 0 <= found <= 1
    assert measure_self_similarity(random.sample(texts, len(texts))) == found
    assert measure_self_similarity([texts[0]] * len(texts)) == 1
    # One more copy of each text leaves the texts, and brings pairs of equals.
    assert measure_self_similarity(texts * 2) >= found - 1e-12


@pytest.mark.parametrize("count", [2, 3, 5])
def test_self_similarity_is_the_mean_chrf_of_all_pairs(count):
    from sacrebleu import sentence_chrf

    texts = [GERMAN, FRENCH, GERMAN, "Alle Menschen sind gleich.", "x"][:count]
    pairs = [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    similar = [1 if a == b else sentence_chrf(a, [b], beta=1).score / 100 for a, b in pairs]
    assert measure_self_similarity(texts) == pytest.approx(sum(similar) / len(similar))


def test_many_long_samples_take_little_time():
    import time

    texts = [f"{i} {GERMAN * 500}" for i in range(256)]
    before = time.perf_counter()
    assert 0.9 < measure_self_similarity(texts) < 1
    assert time.perf_counter() - before < 5


def test_confusion_counts_every_answer(files, tmp_path):
    measure(*files, tmp_path / "out")
    lines = [*rows(tmp_path / "out" / "de.jsonl"), {"language": "cy", "languages": [None, "cy", None]}]
    counts = count_languages(lines)
    assert list(counts) == ["cy", "de"] and list(counts["cy"].items()) == [("cy", 1), ("none", 2)]
    assert counts["de"]["fr"] == 1 and sum(counts["de"].values()) == 3


@pytest.fixture(scope="module")
def published():
    """What scripts/check_identification.py prints of the sentences in tests/data."""
    return script("check_identification", "--sentences", ROOT / "tests" / "data" / "udhr.tsv").stdout


def test_all_languages_are_identified_on_texts_kept_for_this(published):
    with open(ROOT / "config" / "languages.tsv", encoding="utf-8") as file:
        known = [row["code"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in published.splitlines() if line]
    own = {line[0]: line for line in lines if len(line) == len(lines[0])}
    assert set(known) == set(own) - {"language", "---"} and len(known) == 15
    for code in known:
        texts, right, unclear = int(own[code][1]), int(own[code][2]), int(own[code][4])
        assert texts >= 29 and right >= 0.95 * texts and unclear == 0, own[code]


def test_confusions_are_published_as_they_are(published):
    assert published in (ROOT / "docs" / "languages.md").read_text(encoding="utf-8")


def test_sentences_in_an_unknown_language_are_refused(tmp_path):
    path = tmp_path / "sentences.tsv"
    for text, says in (
        ("language\ttext\nxx\tabc\n", "xx cannot be identified"),
        ("language\ttext\nde\n", "sentences.tsv:2, field text"),
        ("language\ttext\n", "no texts"),
    ):
        path.write_text(text, encoding="utf-8")
        done = script("check_identification", "--sentences", path, check=False)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_a_long_text_is_identified(tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text("language\ttext\nde\t" + "Das ist ein Satz über das Wetter. " * 5000 + "\n", encoding="utf-8")
    assert "| de | 1 | 1 |" in script("check_identification", "--sentences", path).stdout


def score(miniature, prompts, answers, outputs, state, *options):
    return script(
        "score", "--prompts", *prompts, "--generations", *answers, "--model", miniature / "reward", "--max-length", 128,
        "--state", state, "--output", *outputs, *options,
    )  # fmt: skip


def test_real_answers_are_measured_and_scored_by_one_model_for_all_languages(miniature, prompts, tmp_path):
    """Rewards of several files at once are those of each by itself, whatever else was scored before."""
    asked = [prompts["en"], prompts["de"]]
    script(
        "evaluate", "--model", miniature / "policy", "--languages", "en", "de", "--prompts", *asked, "--samples", 3,
        "--temperature", "0.7", "--max-tokens", 8, "--state", tmp_path / "state", "--output", tmp_path,
    )  # fmt: skip
    answers = [tmp_path / "answers" / f"{language}.jsonl" for language in ("en", "de")]
    folder = tmp_path / "fidelity"
    script("fidelity", "--languages", "en", "de", "--prompts", *asked, "--answers", *answers, "--output", folder)
    # Other answers to the same prompts, some of them equal, are scored first.
    others = [{**row, "responses": [*row["responses"][:2], answer("so so " * i)]} for i, row in enumerate(rows(answers[1]))]  # fmt: skip
    other = write_rows(tmp_path / "other.jsonl", others)
    score(miniature, asked[1:], [other], [tmp_path / "other" / "de.jsonl"], tmp_path / "state", "--apart")
    rewards = [folder / "english" / f"{language}.jsonl" for language in ("en", "de")]
    score(miniature, asked, answers, rewards, tmp_path / "state", "--apart")
    for language, prompt, answered, found in zip(("en", "de"), asked, answers, rewards, strict=True):
        lines, texts = rows(folder / f"{language}.jsonl"), 0
        assert [line["prompt_id"] for line in lines] == [row["prompt_id"] for row in rows(prompt)]
        for line, written, scored in zip(lines, rows(answered), rows(found), strict=True):
            assert line["n_tokens"] == [response["n_tokens"] for response in written["responses"]]
            assert scored["prompt_id"] == line["prompt_id"] and len(scored["rewards"]) == len(line["languages"]) == 3
            assert 0 <= line["self_similarity"] <= 1 and None not in scored["rewards"]
            texts += len({response["text"] for response in written["responses"]})
        manifest = json.loads(found.with_suffix(".manifest.json").read_text())
        assert manifest["scored"] == texts and manifest["counts"]["null"] == 0
    score(miniature, asked[1:], answers[1:], [tmp_path / "alone.jsonl"], tmp_path / "alone")
    assert (tmp_path / "alone.jsonl").read_bytes() == rewards[1].read_bytes()


def test_rules_measure_each_run_and_the_base_by_all_reward_models(tmp_path, fresh_project):
    config = yaml.safe_load((ROOT / "tests" / "scenarios" / "two_languages.yaml").read_text(encoding="utf-8"))
    config["results"] = str(tmp_path / "results")
    rewards = [{"name": name, "path": "{results}/miniature/reward", "max_length": 128} for name in ("english", "second", "idle")]  # fmt: skip
    row = next(row for row in config["settings"] if row["name"] == "dpo")
    settings = [*config["settings"], {**row, "name": "dpo_second", "reward_model": "second", "pools": ["de"]}]
    path = tmp_path / "config.yaml"

    def plan(*targets, **changes):
        path.write_text(yaml.safe_dump({**config, "reward_models": rewards, "settings": settings, **changes}))
        return planned(fresh_project, *targets, "--configfile", path)

    kinds = [f"{kind}_{batch}" for kind in ("measure", "score_answers") for batch in ("multi", "language")]
    jobs = plan()
    # The base and dpo_random in both languages; dpo in en and de, and dpo_second in de, by themselves.
    assert {name: count for name, count in jobs.items() if name in kinds} == {
        "measure_multi": 2, "score_answers_multi": 3, "measure_language": 3, "score_answers_language": 3,
    }  # fmt: skip
    target = f"{config['results']}/mini/de/dpo_second/fidelity/second/de.jsonl"
    wanted = plan(target)
    assert (wanted["score_answers_language"], wanted["evaluate_language"]) == (
        1,
        1,
    ) and "measure_language" not in wanted
    jobs = plan(evaluation={**config["evaluation"], "fidelity": False})
    assert "summarise" in jobs and not set(jobs) & set(kinds)
