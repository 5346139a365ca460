"""The miniature's world: parallel questions, splits that do not leak, and the oracle."""

import random

import pytest

from croco.miniature.world import (
    LANGUAGES,
    SPLITS,
    TUNED_FAMILIES,
    UNTOUCHED_FAMILY,
    Question,
    draw_answer,
    facts,
    oracle_quality,
    question_by_id,
    questions,
    split_facts,
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_are_parallel_and_found_by_id(language):
    for family in (*TUNED_FAMILIES, UNTOUCHED_FAMILY):
        ours, english = questions(facts(family), language), questions(facts(family), "en")
        assert [q.prompt_id for q in ours] == [q.prompt_id for q in english]
        assert all(question_by_id(q.prompt_id, language) == q for q in ours)
        assert len({q.text for q in ours}) == len(ours)


@pytest.mark.parametrize("seed", range(3))
def test_splits_share_no_fact(seed):
    splits = split_facts(seed)
    everything = [fact for some in splits.values() for fact in some]
    assert len(everything) == len(set(everything)) == sum(len(facts(family)) for family in TUNED_FAMILIES)
    for name, share in SPLITS.items():
        assert len(splits[name]) == pytest.approx(share * len(everything), abs=4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_oracle_ranks_answers(language):
    rng = random.Random(1)
    for question in questions(facts("capital") + facts("add"), language):
        wrong = question.answer(question.wrong_value(rng))
        ranked = [question.answer(), f"... {question.answer()}", question.value, wrong]
        qualities = [oracle_quality(question, text) for text in ranked]
        assert qualities == sorted(qualities, reverse=True) and qualities[0] == 1 and qualities[-1] == 0
        other = Question(question.fact, "fr" if language == "nl" else "nl", 0)
        assert oracle_quality(question, other.answer()) in (0.3, 1.0)


def test_answers_are_mixed_as_declared():
    rng = random.Random(0)
    question = questions(facts("add"), "de")[10]
    qualities = [oracle_quality(question, draw_answer(question, rng, ["en", "de"])) for _ in range(4000)]
    assert sum(quality == 1 for quality in qualities) / 4000 == pytest.approx(0.40 * 0.94, abs=0.03)
    assert sum(quality == 0 for quality in qualities) / 4000 == pytest.approx(0.25, abs=0.03)


def test_foreign_ids_are_refused():
    for prompt_id in ("capital-3", "poem-1-a", "x", "add-a-b-a"):
        with pytest.raises(ValueError, match="does not belong to the miniature"):
            question_by_id(prompt_id, "en")
