"""Training prompts among what is evaluated: found by text and by 13 words, stopping the run or taken out."""

import json
import unicodedata

import pytest
import yaml
from conftest import ROOT, copy_project, rows, script, snakemake, write_rows
from hypothesis import given
from hypothesis import strategies as st

from croco.errors import InputError
from croco.evaluation.tasks import list_question_fields
from croco.prompts.overlap import Evaluated, N, list_grams

LONG = "the quick brown fox jumps over the lazy dog while seven small cats look on"
THAI = "ประเทศไทยมีเมืองหลวงชื่อกรุงเทพ"


def prompt(i, *turns, language="en", **more):
    messages = [{"role": "system", "content": "Be brief."}]
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": LONG}]
    return {"prompt_id": str(i), "language": language, "messages": messages[:-1], "reference": "Yes.", **more}


def find(texts, row):
    evaluated = Evaluated()
    for text in texts:
        evaluated.add([text], [text])
    found = evaluated.find(row)
    return found["exact"], found["ngram_13"]


@pytest.mark.parametrize(
    ("evaluated", "turns", "exact", "shared"),
    [
        ("What is  2 + 2?", ["what is\n2 + 2? "], True, True),
        ("Tell me of Zoë.", ["TELL ME OF ZOE\u0308."], True, True),
        ("Tell me of Zo\u200bë.", ["Tell me of Zoë."], True, True),
        ("What is 2 + 2?", ["What is 2 + 3?"], False, False),
        ("What is 2 + 2?", ["Hello!", "What is 2 + 2?"], True, True),
        (f"Translate: {LONG}.", [f"And now: {LONG.upper()}!"], False, True),
        (" ".join(LONG.split()[:12]), [LONG], False, False),
        (" ".join(LONG.split()[:13]), [LONG], False, True),
        (THAI[:13], [f"ก{THAI}"], False, True),
        (THAI[:12], [f"ก{THAI}"], False, False),
        ("今日はとてもいい天気ですねえ", ["今日はとてもいい天気ですねえ。それで"], False, True),
        ("", [""], False, False),
        ("\u200b", ["\u200b"], False, False),
    ],
)
def test_what_counts_as_overlap(evaluated, turns, exact, shared):
    found = find([evaluated], prompt(0, *turns))
    assert [bool(entries) for entries in found] == [exact, shared]


def test_an_answer_in_a_training_chat_is_no_prompt():
    assert find([LONG], prompt(0, "Say it.", "Again.")) == (set(), set())


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=20), max_size=4), st.lists(st.sampled_from("abc"), max_size=20)
)
def test_overlap_agrees_with_a_search(entries, words):
    def runs(some):
        return {tuple(some[i : i + N]) for i in range(len(some) - N + 1)}

    exact, shared = find([" ".join(entry) for entry in entries], prompt(0, " ".join(words)))
    assert exact == {i for i, entry in enumerate(entries) if entry and entry == words}
    assert shared == exact | {i for i, entry in enumerate(entries) if runs(entry) & runs(words)}


@given(st.text(max_size=60), st.sampled_from(["NFC", "NFD"]))
def test_form_and_white_space_play_no_part(text, form):
    same = unicodedata.normalize(form, text)
    assert find([text], prompt(0, same)) == find([text], prompt(0, text))
    assert list_grams([text]) == list_grams([f"  {same}\n"])


@given(st.text(alphabet=list(THAI), min_size=N, max_size=40))
def test_scripts_without_spaces_have_a_gram_for_each_character(text):
    assert len(list_grams([text])) == len({text[i : i + N] for i in range(len(text) - N + 1)})


@pytest.fixture
def files(tmp_path):
    """Four training prompts: one is an evaluation prompt, one is a task's question, one shares 13 words; and the rest."""
    train = [
        prompt("a", "What is 2 + 2?"),
        prompt("b", "Where is Rome?"),
        prompt("c", f"Say: {LONG}"),
        prompt("d", "Paris"),
    ]
    evaluate = [
        prompt(0, "what is 2 + 2?"),
        prompt(1, LONG),
        prompt(2, "Hello"),
        prompt(3, "Paris", skip="not translated"),
    ]
    write_rows(tmp_path / "train.jsonl", [*train, prompt("e", "Hello", skip="not translated")])
    write_rows(tmp_path / "evaluate.jsonl", evaluate)
    write_rows(tmp_path / "facts.jsonl", [{"question": "Where is Rome?", "option": "Paris", "id": "What is 2 + 2?"}])
    return tmp_path


def check(folder, *options, name="found", **keywords):
    task = ("--task", "facts", folder / "facts.jsonl", "question", "option")
    return script(
        "contamination", "--language", "en", "--prompts", folder / "train.jsonl", "--evaluate", folder / "evaluate.jsonl",
        *task, *options, "--output", folder / f"{name}.json", **keywords,
    )  # fmt: skip


def test_a_block_is_counted_by_source(files):
    check(files, "--exact", 0.5)
    found = json.loads((files / "found.json").read_text())
    assert found == {
        "language": "en",
        "prompts": 4,
        "hits": {"exact": 2, "ngram_13": 3},
        "removed": [],
        "sources": {
            "evaluation prompts": {
                "evaluated": 3,
                "without_text": 0,
                "exact": {"prompts": ["a"], "evaluated": [0]},
                "ngram_13": {"prompts": ["a", "c"], "evaluated": [0, 1]},
            },
            "facts": {
                "evaluated": 1,
                "without_text": 0,
                "exact": {"prompts": ["b"], "evaluated": [0]},
                "ngram_13": {"prompts": ["b"], "evaluated": [0]},
            },
        },
    }
    assert (files / "found.manifest.json").exists()


@pytest.mark.parametrize("options", [(), ("--exact", 0.49), ("--exact", 1, "--ngram", 0.7)])
def test_more_than_the_declared_share_ends_the_run(files, options):
    done = check(files, *options, check=False)
    assert done.returncode == 1 and "train.jsonl" in done.stderr and "(a" in done.stderr
    assert "Remedy" in done.stderr and "Traceback" not in done.stderr and not (files / "found.json").exists()


def test_what_would_end_the_run_can_be_taken_out(files):
    check(files, "--action", "remove")
    assert json.loads((files / "found.json").read_text())["removed"] == ["a", "b"]
    check(files, "--action", "remove", "--ngram", 0.7)
    assert json.loads((files / "found.json").read_text())["removed"] == ["a", "b", "c"]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("options", "expected"), [(("--exact", 0.9), "ab"), (("--ngram", 0.9), "abc"), ((), "ab")])
def test_the_size_of_a_block_does_not_decide_what_is_taken_out(files, size, options, expected):
    train, removed = rows(files / "train.jsonl")[:4], []
    for start in range(0, 4, size):
        write_rows(files / "train.jsonl", train[start : start + size])
        check(files, "--action", "remove", *options)
        removed += json.loads((files / "found.json").read_text())["removed"]
    assert removed == list(expected)


def find_in_task(folder, row, *fields, training=("What is asked here?",)):
    """What the task `own` with this one row shares with the training prompts."""
    write_rows(folder / "train.jsonl", [prompt(i, text) for i, text in enumerate(training)])
    write_rows(folder / "own.jsonl", [row])
    script(
        "contamination", "--language", "en", "--prompts", folder / "train.jsonl", "--task", "own", folder / "own.jsonl",
        *fields, "--exact", 1, "--output", folder / "found.json",
    )  # fmt: skip
    return json.loads((folder / "found.json").read_text())["sources"]["own"]


@pytest.mark.parametrize(
    ("template", "row"),
    [
        ('doc_to_text: ""\ndoc_to_choice: "{{[good, bad]}}"', {"good": "What is asked here?", "bad": "What are asked here?"}),
        ("doc_to_text: Say whether this is true.", {"claim": "What is asked here?"}),
        ('doc_to_text: "{{question.stem}}"', {"question": {"stem": "What is asked here?"}, "answer": "Say whether this is true."}),
    ],
)  # fmt: skip
def test_a_question_of_no_field_or_of_part_of_one_is_compared(tmp_path, template, row):
    (tmp_path / "own.yaml").write_text(template + "\n")
    fields, training = list_question_fields(tmp_path / "own.yaml"), ("What is asked here?", "Say whether this is true.")
    assert find_in_task(tmp_path, row, *fields, training=training)["exact"] == {"prompts": ["0"], "evaluated": [0]}


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"id": "1", "question": {"stem": "What is asked here?", "choices": [{"text": "This", "label": "A"}]}}, ()),
        ({"subject": "maths", "question": {"stem": "What is asked here?"}}, ("subject", "question")),
        ({"messages": [{"role": "user", "content": "What is asked here?"}], "year": 2020}, ()),
        ({"turns": [["Hello", None], ["what is  ASKED here?"]]}, ("turns",)),
    ],
)
def test_texts_within_lists_and_objects_are_compared(tmp_path, row, fields):
    found = find_in_task(tmp_path, row, *fields)
    assert found["exact"] == {"prompts": ["0"], "evaluated": [0]} and found["evaluated"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: write_rows(folder / "evaluate.jsonl", []), "evaluate.jsonl: no evaluation prompts"),
        (lambda folder: write_rows(folder / "evaluate.jsonl", [prompt(0, "Hallo", language="de")]), "evaluate.jsonl:1, field language"),
        (lambda folder: write_rows(folder / "train.jsonl", [prompt(0, "Hi"), prompt(1, "Hallo", language="de")]), "train.jsonl:2, field language"),
        (lambda folder: write_rows(folder / "facts.jsonl", []), "facts.jsonl, field question, option"),
        (lambda folder: write_rows(folder / "facts.jsonl", [{"question": None, "option": 3}]), "facts.jsonl, field question, option: no text"),
        (lambda folder: write_rows(folder / "facts.jsonl", [{"question": "Where is Rome?"}]), "no row has option"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(files, change, said):
    change(files)
    done = check(files, "--exact", 1, check=False)
    assert done.returncode == 1 and said in done.stderr and "Remedy" in done.stderr and "Traceback" not in done.stderr
    assert not (files / "found.json").exists()


def test_neither_a_tasks_data_nor_the_manifest_of_another_file_is_replaced(files):
    task = files / "facts.jsonl"
    before = task.read_bytes()
    task = task.rename(files / "facts.json")
    options = ("--language", "en", "--prompts", files / "train.jsonl", "--task", "facts", task, "question")
    done = script("contamination", *options, "--exact", 1, "--output", task, check=False)
    assert done.returncode == 1 and f"{task} would be replaced" in done.stderr and task.read_bytes() == before
    script("contamination", *options, "--exact", 1, "--output", files / "found.json")
    before = (files / "found.manifest.json").read_bytes()
    done = script("contamination", *options, "--exact", 1, "--output", files / "found.jsonl", check=False)
    assert done.returncode == 1 and "is the manifest of found.json" in done.stderr
    assert (files / "found.manifest.json").read_bytes() == before


def test_a_comparison_with_nothing_is_refused(files):
    done = script(
        "contamination", "--language", "en", "--prompts", files / "train.jsonl", "--output", files / "found.json", check=False
    )  # fmt: skip
    assert done.returncode == 1 and "--evaluate" in done.stderr and not (files / "found.json").exists()


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        ('doc_to_text: "{{question.strip()}} {{option}}"\nprocess: !function x.y', ["option", "question"]),
        ("doc_to_text: question", ["question"]),
        ("doc_to_text: !function x.y", []),
        ("doc_to_text: !function x.y\ndoc_to_decontamination_query: question", ["question"]),
        ('doc_to_text: "{{a}} {{b}}"\ndoc_to_decontamination_query: "{{a}}"', ["a"]),
        ('doc_to_text: ""\ndoc_to_choice: "{{[good, bad]}}"', []),
        ("doc_to_text: Which of these is a sentence?", []),
        ("""doc_to_text: "{{ question | regex_replace('a', 'b') }}\"""", ["question"]),
        ('doc_to_text: "{{question.stem}}"', ["question"]),
        # A row may lack these.
        (
            """doc_to_text: "{{context|default('')}} {{question}} {{hint | d('')}}\"""",
            ["question", "context?", "hint?"],
        ),
        ('doc_to_text: "{% if context is defined %}{{context}}{% endif %}{{question}}"', ["question", "context?"]),
        ('doc_to_text: "{% if a is not defined %}-{% endif %}{{question}}"', ["question", "a?"]),
        ("""doc_to_text: "{{question|default('')}} {{question}}\"""", ["question"]),
        # A name of the template's own is no field.
        (
            'doc_to_text: "{% for part in parts %}{{loop.index}}. {{part}}{% endfor %}{% set n = range(2) %}{{n}}"',
            ["parts"],
        ),
    ],
)
def test_the_fields_of_a_tasks_question(tmp_path, lines, fields):
    (tmp_path / "facts.yaml").write_text(lines + "\n")
    assert list_question_fields(tmp_path / "facts.yaml") == fields


@pytest.mark.parametrize(
    ("includes", "own", "fields"),
    [
        ("base.yaml", "", ["question"]),
        ("base.yaml", "doc_to_text: own", ["own"]),
        ("[base.yaml, other.yaml]", "", ["other"]),  # the later one wins
        ("deep/nested.yaml", "", ["question"]),
    ],
)
def test_the_question_may_be_in_an_included_file(tmp_path, includes, own, fields):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/nested.yaml").write_text("include: ../base.yaml\n")
    (tmp_path / "base.yaml").write_text('doc_to_text: "{{question}}"\n')
    (tmp_path / "other.yaml").write_text('doc_to_text: "{{other}}"\n')
    (tmp_path / "facts.yaml").write_text(f"include: {includes}\n{own}\n")
    assert list_question_fields(tmp_path / "facts.yaml") == fields


def test_a_task_in_another_encoding_is_no_task(tmp_path):
    (tmp_path / "facts.yaml").write_bytes("doc_to_text: Où?\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"facts\.yaml: not a task of lm-eval"):
        list_question_fields(tmp_path / "facts.yaml")


def test_a_share_is_exceeded_only_above_it(tmp_path):
    """29 of 100 are not more than 0.29, though 0.29 * 100 is 28.999999999999996."""
    write_rows(tmp_path / "train.jsonl", [prompt(i, f"Where is Rome {i}?") for i in range(100)])
    write_rows(tmp_path / "evaluate.jsonl", [prompt(i, f"Where is Rome {i}?") for i in range(29)])
    for share, code in ((0.29, 0), (0.28, 1)):
        done = script(
            "contamination", "--language", "en", "--prompts", tmp_path / "train.jsonl", "--evaluate", tmp_path / "evaluate.jsonl",
            "--exact", share, "--output", tmp_path / "found.json", check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_rows_of_a_task_without_text_are_counted(files):
    questions = [{"question": None}, {"question": "Where is Rome?", "option": None}, {"question": "\u200b"}]
    write_rows(files / "facts.jsonl", questions)
    check(files, "--exact", 1)
    found = json.loads((files / "found.json").read_text())["sources"]["facts"]
    assert found == {
        "evaluated": 1,
        "without_text": 2,
        "exact": {"prompts": ["b"], "evaluated": [0]},
        "ngram_13": {"prompts": ["b"], "evaluated": [0]},
    }


def test_blocks_add_up(files):
    check(files, "--exact", 1, name="one")
    write_rows(files / "train.jsonl", [prompt("x", "What is 2 + 2?"), prompt("y", "Bye")])
    check(files, "--action", "remove", name="two")
    script(
        "contamination", "--checked", files / "one.json", files / "two.json", "--unchecked", "belebele_deu_Latn",
        "--output", files / "contamination.json",
    )  # fmt: skip
    found = json.loads((files / "contamination.json").read_text())
    assert found["unchecked"] == ["belebele_deu_Latn"]
    english = found["languages"]["en"]
    assert {name: english[name] for name in ("prompts", "exact", "ngram_13", "removed", "exact_left_in")} == {
        "prompts": 6, "exact": 3, "ngram_13": 4, "removed": 1, "exact_left_in": 2,
    }  # fmt: skip
    assert english["sources"]["evaluation prompts"]["exact"] == {"prompts": 2, "evaluated": 1}


def test_a_block_is_counted_once(files):
    check(files, "--exact", 1, name="one")
    again = files / "again.json"
    again.symlink_to(files / "one.json")
    done = script("contamination", "--checked", files / "one.json", again, "--output", files / "sum.json", check=False)
    assert done.returncode == 1 and "again.json: the same file twice" in done.stderr
    assert not (files / "sum.json").exists()


FOUND = {"language": "de", "prompts": 3, "hits": {"exact": 1, "ngram_13": 1}, "removed": ["1"], "sources": {}}


@pytest.mark.parametrize(
    "other", [{"languages": {}, "unchecked": []}, {"removed": ["1"]}, {**FOUND, "sources": {"facts": {}}}, []], ids=str
)
def test_another_report_is_not_what_was_found(tmp_path, other):
    wrong, prompts = tmp_path / "report.json", write_rows(tmp_path / "prompts.jsonl", [prompt(0, "Hi")])
    wrong.write_text(json.dumps(other))
    output = ("--output", tmp_path / "out.json")
    for name, *options in (
        ("contamination", "--checked", wrong),
        ("build_pairs", "--prompts", prompts, "--target", "prompts", "--exclude", wrong, "--ledger", tmp_path / "l"),
    ):
        done = script(name, *options, *output, check=False)
        assert (
            done.returncode == 1
            and f"{wrong}: not a result of contamination.py" in done.stderr
            and "Remedy" in done.stderr
        )
        assert "Traceback" not in done.stderr and not (tmp_path / "out.json").exists()


def test_nothing_is_formed_of_what_is_taken_out(tmp_path):
    """Of a prompt that is taken out in one language nothing is formed in any; the ledgers add up."""
    write_rows(tmp_path / "found.json", [FOUND])
    files = {name: [] for name in ("prompts", "generations", "scores")}
    for code in ("en", "de"):
        prompts = [prompt(i, f"Question {i}", language=code) for i in range(3)]
        answers = [{"text": f"{code} {j}", "finish_reason": "stop"} for j in range(3)]
        generations = [{"prompt_id": str(i), "language": code, "responses": answers} for i in range(3)]
        scores = [{"prompt_id": str(i), "language": code, "rewards": [0, 1, 2.5]} for i in range(3)]
        for name, lines in (("prompts", prompts), ("generations", generations), ("scores", scores)):
            files[name].append(write_rows(tmp_path / f"{name}.{code}.jsonl", lines))
    everything = [part for name, paths in files.items() for part in (f"--{name}", *paths)]
    for options in (
        (*everything, "--rejected", "min"),
        (*everything, "--rejected", "random"),
        (*everything, "--rejected", "min", "--standardise"),
        (*everything, "--target", "best"),
        ("--prompts", *files["prompts"], "--target", "reference"),
        ("--prompts", *files["prompts"], "--target", "reference", "--per-prompt", "all"),
        ("--prompts", *files["prompts"], "--target", "prompts"),
    ):
        script(
            "build_pairs", *options, "--exclude", tmp_path / "found.json", "--output", tmp_path / "out.jsonl",
            "--ledger", tmp_path / "ledger.json",
        )  # fmt: skip
        ledger = json.loads((tmp_path / "ledger.json").read_text())
        each = 2 if "all" in options else 1
        assert ledger["no_pair"] == {"in_evaluation": each} and ledger["formed"] == 2 * each, options
        assert {row["prompt_id"] for row in rows(tmp_path / "out.jsonl")} == {"0", "2"}
        for counts in ledger["languages"].values():
            assert counts["prompts"] == 3 and counts["skipped"]["in_evaluation"] == 1
    write_rows(tmp_path / "found.json", [FOUND | {"removed": ["0", "1", "2"]}])
    done = script(
        "build_pairs", *everything, "--exclude", tmp_path / "found.json", "--output", tmp_path / "none.jsonl",
        "--ledger", tmp_path / "ledger.json", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Remedy: take prompts that the files of --exclude do not remove" in done.stderr


def test_shipped_tasks_name_their_question(tmp_path):
    """Questions alone: an answer option that someone asks is no evaluation prompt."""
    options = {"option_a": "The city of Rome", "option_b": "b", "option_c": "c", "option_d": "d"}
    answers = {"mc_answer1": "The city of Rome", "mc_answer2": "b", "mc_answer3": "c", "mc_answer4": "d"}
    row = {
        "question": "Where is the Colosseum?",
        "flores_passage": "It is said to be in Rome.",
        "answer": "A",
        **options,
        **answers,
    }
    write_rows(tmp_path / "data.jsonl", [row])
    write_rows(tmp_path / "train.jsonl", [prompt("q", row["question"]), prompt("o", options["option_a"])])
    for path in (ROOT / "config/tasks").glob("*.yaml"):
        script(
            "contamination", "--language", "en", "--prompts", tmp_path / "train.jsonl", "--task", "own",
            tmp_path / "data.jsonl", *list_question_fields(path), "--exact", 1, "--output", tmp_path / "found.json",
        )  # fmt: skip
        found = json.loads((tmp_path / "found.json").read_text())
        assert found["sources"]["own"]["exact"]["prompts"] == ["q"], path


@pytest.fixture(scope="module")
def project(miniature, tmp_path_factory):
    """Prompts from outside in two languages; the first training prompt of English alone is an evaluation prompt, too."""
    folder = copy_project(tmp_path_factory.mktemp("contaminated"))
    for code in ("en", "de"):
        train = rows(miniature / f"prompts/train/{code}.jsonl")[:6]
        evaluate = rows(miniature / f"prompts/dev/{code}.jsonl")[:3]
        write_rows(folder / f"data/train.{code}.jsonl", train)
        more = [{**train[0], "id": "seen"}] if code == "en" else [{**evaluate[0], "id": "seen", "text": "Und was nun?"}]
        write_rows(folder / f"data/dev.{code}.jsonl", evaluate + more)
    config = {
        "results": "results/outside",
        "languages": [{"code": "en"}, {"code": "de"}],
        "samples": 4,
        "hygiene": [],
        "prompts": [
            {"use": "train", "path": "data/train.{language}.jsonl"},
            {"use": "evaluate", "path": "data/dev.{language}.jsonl"},
        ],
        "pools": [],
        "policies": [{"name": "mini", "path": str(miniature / "policy"), "temperature": 0.6, "max_tokens": 12}],
        "reward_models": [{"name": "english", "path": str(miniature / "reward"), "max_length": 128}],
        "settings": [
            {"name": "base", "objective": "none"},
            {"name": "dpo", "objective": "dpo", "target": "pair", "rejected": "min", "pools": ["monolingual"]},
        ],
        "evaluation": {"judge": "none", "tasks": [], "samples": 1, "temperature": 0, "max_tokens": 8},
        "contrasts": [],
    }
    (folder / "outside.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def test_the_run_ends_before_anything_is_sampled_or_goes_on_without_these_prompts(project):
    results, arguments = project / "results/outside", ("--cores", 2, "--configfile", "outside.yaml")
    pairs = [f"results/outside/mini/{code}/dpo/pairs.jsonl" for code in ("en", "de")]
    done = snakemake(project, *pairs, *arguments, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "are part of the evaluation data" in said and "Traceback" not in said
    assert (results / "prompts/de/0.contamination.json").exists() and not list(results.glob("mini/*/generations*"))
    snakemake(project, *pairs, "results/outside/contamination.json", *arguments, "--config", "contamination=remove")
    first = rows(results / "prompts/en.jsonl")[0]["prompt_id"]
    for code in ("en", "de"):
        ledger = json.loads((results / f"mini/{code}/dpo/ledger.json").read_text())
        assert ledger["no_pair"]["in_evaluation"] == 1 and ledger["prompts"] == 6
        assert first not in {row["prompt_id"] for row in rows(project / pairs[code == "de"])}
    found = json.loads((results / "contamination.json").read_text())["languages"]
    assert [(found[code]["exact"], found[code]["removed"]) for code in ("en", "de")] == [(1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("option", "field"), [("contamination=keep", "contamination"), ("max_overlap={exact: 2}", "exact"), ("max_overlap={words: 0}", "max_overlap")]
)  # fmt: skip
def test_a_wrong_config_is_refused(project, option, field):
    done = snakemake(project, "--dry-run", "--configfile", "outside.yaml", "--config", option, check=False)
    assert done.returncode == 1 and field in done.stdout + done.stderr and "Traceback" not in done.stderr
