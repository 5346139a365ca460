"""scripts/preview.py: the page held against the pairs, blind ballots, and votes put back."""

import csv
import json
import math
import random
import re

import pytest
from conftest import rows, script, write_rows
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from croco.spreadsheets import FORMULA
from preview import guard_text, normalise

MINUS = "\N{MINUS SIGN}"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</details></div><h1 onclick='x'>big</h1>",
    "{{ 7 * 7 }} {% raw %} &amp; &lt;b&gt;",
    "=HYPERLINK(\"http://x\",\"y\")",
    "- a list\n- of two",
    "  +1, with spaces, \"quotes\"; and\r\na line",
    "@SUM(A1)",
]  # fmt: skip


def make_run(folder, languages=("en", "de"), prompts=12, samples=8, seed=0, identified=None, build=(), text=None):
    """Files of one run with pairs by build_pairs.py; prompt 3 has equal rewards, prompt 4 nulls and repetitions."""
    rng = random.Random(seed)
    options = {"source": [folder / "prompts" / "en.jsonl"], "language": list(languages)}
    for language in dict.fromkeys(("en", *languages)):
        lines = {"prompts": [], "generations": [], "scores": []}
        for i in range(prompts):
            names = {"prompt_id": f"p{i}", "language": language}
            messages = [{"role": "user", "content": f"{language} question {i} <b>"}]
            if i % 3 == 0:
                before = [{"role": "system", "content": f"{language} be brief"}, {"role": "user", "content": "first"}]
                messages = [*before, {"role": "assistant", "content": "an answer"}, *messages]
            texts = [text(i, j) if text else f"{language} answer {i}-{j} {rng.choice(HOSTILE)}" for j in range(samples)]
            if not text and i % 2:
                texts = [f"{HOSTILE[(i + j) % len(HOSTILE)]} {language} {j}" for j in range(samples)]
            rewards = [round(rng.gauss(0, 2), 3) for _ in texts]
            if i == 3:
                rewards = [0.5] * samples
            if i == 4 and samples > 4:
                texts[:3], rewards[:3], rewards[3] = [texts[0]] * 3, [rewards[0]] * 3, None
            finish = ["length" if j == 5 else "stop" for j in range(samples)]
            responses = [{"text": t, "finish_reason": f, "n_tokens": len(t), "token_digest": "x"} for t, f in zip(texts, finish, strict=True)]  # fmt: skip
            lines["prompts"].append({**names, "messages": messages, "reference": None, "source": "t", "skip": None})
            lines["generations"].append({**names, "skip": None, "responses": responses})
            lines["scores"].append({**names, "rewards": rewards})
        for name, values in lines.items():
            write_rows(folder / name / f"{language}.jsonl", values)
        if identified:
            found = [{"prompt_id": f"p{i}", "language": language, "languages": identified(language, samples)} for i in range(prompts)]  # fmt: skip
            write_rows(folder / "identified" / f"{language}.jsonl", found)
    names = ("prompts", "generations", "scores", *(["identified"] if identified else []))
    for language in languages:
        files = [part for name in names for part in (f"--{name}", folder / name / f"{language}.jsonl")]
        pairs, ledger = folder / "pairs" / f"{language}.jsonl", folder / "ledger" / f"{language}.json"
        script("build_pairs", *files, *build, "--output", pairs, "--ledger", ledger)
        options.setdefault("pairs", []).append(pairs)
        options.setdefault("ledger", []).append(ledger)
        for name in names:
            options.setdefault(name, []).append(folder / name / f"{language}.jsonl")
    return options


def preview(folder, files, *options, check=True):
    arguments = [part for name, values in files.items() for part in (f"--{name}", *values)]
    return script("preview", *arguments, *options, "--output", folder / "page.html", "--ballots", folder / "ballots", check=check)  # fmt: skip


def parse(folder):
    return html.fromstring((folder / "page.html").read_text(encoding="utf-8"))


def sections(page, language):
    """{prompt id: its section} of one language, in the order of the page."""
    found = page.xpath(f"//section[h3[starts-with(@id, '{language}-')]]")
    return {section.xpath("string(h3)"): section for section in found}


def text_of(element):
    """The text of a response, with the line ends that a parser makes of carriage returns."""
    return element.xpath("string(.//*[contains(@class, 'text')])")


def same_text(one, other):
    return one.replace("\r\n", "\n") == other.replace("\r\n", "\n")


def reward_of(element):
    found = re.search(rf"reward ({MINUS}?[\d.]+)", element.xpath("string(.//p[@class='measures'])"))
    return found and float(found[1].replace(MINUS, "-"))


def read_ballot(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_ballot(path, lines, delimiter=",", encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, lines[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run in en and de, its files, and a preview of all its prompts."""
    folder = tmp_path_factory.mktemp("preview")
    files = make_run(folder)
    preview(folder, files, "--count", 12)
    return folder, files


@pytest.fixture(scope="module")
def page(run):
    return parse(run[0])


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_prompt_with_its_pair_and_pool(run, page, language):
    folder, _ = run
    shown = sections(page, language)
    pairs = {pair["prompt_id"]: pair for pair in rows(folder / "pairs" / f"{language}.jsonl")}
    generations, scores = rows(folder / "generations" / f"{language}.jsonl"), rows(folder / "scores" / f"{language}.jsonl")  # fmt: skip
    assert shown.keys() == {line["prompt_id"] for line in generations}
    assert pairs.keys() == shown.keys() - {"p3"}
    for generation, score in zip(generations, scores, strict=True):
        section = shown[generation["prompt_id"]]
        answers = section.xpath(".//div[contains(@class, 'answer')]")
        expected = dict(zip((response["text"] for response in generation["responses"]), score["rewards"], strict=True))
        assert sorted(map(text_of, answers)) == sorted(text.replace("\r\n", "\n") for text in expected)
        for answer in answers:
            reward = next(value for text, value in expected.items() if same_text(text, text_of(answer)))
            assert reward_of(answer) == (None if reward is None else pytest.approx(reward, abs=5e-4))
            assert ("not scored" in answer.text_content()) == (reward is None)
        others = [reward_of(answer) for answer in section.xpath("./details/div")]
        assert others == sorted(others, key=lambda reward: math.inf if reward is None else -reward)
        pair = pairs.get(generation["prompt_id"])
        assert bool(section.xpath(".//div[contains(@class, 'chosen')]")) == bool(pair)
        if pair:
            for side in ("chosen", "rejected"):
                marked = section.xpath(f".//div[@class='answer {side}']")
                assert len(marked) == 1 and same_text(text_of(marked[0]), pair[side][0]["content"])
                assert reward_of(marked[0]) == pytest.approx(pair[f"{side}_reward"], abs=5e-4)
            said = [f"{pair['pool_size']} responses", f"mean {pair['pool_mean']:.3f}", f"sd {pair['pool_std']:.3f}", f"target {pair['target']:.3f}"]  # fmt: skip
            for part in said:
                assert part.replace("-", MINUS) in section.text_content()


def test_equal_responses_are_shown_once_with_their_count(run, page):
    folder, _ = run
    repeated = rows(folder / "generations" / "de.jsonl")[4]["responses"][0]["text"]
    found = [answer for answer in sections(page, "de")["p4"].xpath(".//div[contains(@class, 'answer')]") if same_text(text_of(answer), repeated)]  # fmt: skip
    assert len(found) == 1 and "\N{MULTIPLICATION SIGN} 3" in found[0].text_content()


def test_responses_of_an_unknown_number_of_tokens_are_shown_without_one(tmp_path):
    """Of three equal responses one has no count, one has null and one has 7."""
    files = make_run(tmp_path, languages=["de"], prompts=5)
    lines = rows(files["generations"][0])
    for line in lines:
        for response in line["responses"]:
            del response["n_tokens"]
    lines[4]["responses"][0]["n_tokens"], lines[4]["responses"][1]["n_tokens"] = None, 7
    write_rows(files["generations"][0], lines)
    preview(tmp_path, files)
    found = sections(parse(tmp_path), "de")
    assert re.findall(r"[^·\n]*tokens", found["p4"].text_content()) == [" 7 tokens"]
    assert not any("tokens" in found[f"p{i}"].text_content() for i in range(4))


def test_source_stands_beside_the_translation_with_roles(page):
    translated, same = sections(page, "de")["p6"], sections(page, "en")["p6"]
    chats = translated.xpath("./div[@class='pair'][1]/div[@class='chat']")
    assert [chat.xpath("string(h4)") for chat in chats] == ["en", "de"]
    for chat, language in zip(chats, ("en", "de"), strict=True):
        assert [role.text for role in chat.xpath(".//*[@class='role']")] == ["system", "user", "assistant", "user"]
        assert {(text.get("lang"), text.get("dir")) for text in chat.xpath(".//*[@class='text']")} == {(language, "auto")}  # fmt: skip
        assert chat.xpath("string(.//div[@class='turn'][last()]/div)") == f"{language} question 6 <b>"
    assert len(same.xpath(".//div[@class='chat']")) == 1


def test_a_prompt_without_a_pair_says_why(run, page):
    folder, _ = run
    assert "No pair: no response has a lower reward than the best" in sections(page, "de")["p3"].text_content()
    ledger = json.loads((folder / "ledger" / "de.json").read_text())
    assert f"{ledger['formed']} of {ledger['prompts']} prompts formed a pair; none: no_lower_reward 1" in page.text_content()  # fmt: skip


def test_a_prompt_that_is_evaluated_says_so(tmp_path):
    """Prompts that are removed in a language, or in the source language, are in no pair of that language."""
    found = {"prompts": 12, "hits": {}, "sources": {}}
    exclude = {}
    for language, removed in (("en", ["p5"]), ("de", ["p7"])):
        exclude[language] = tmp_path / f"{language}.contamination.json"
        exclude[language].write_text(json.dumps({**found, "language": language, "removed": removed}), encoding="utf-8")
    files = make_run(tmp_path, languages=["de"], build=("--exclude", *exclude.values()))
    preview(tmp_path, files, "--count", 12, "--exclude", *exclude.values())
    shown = sections(parse(tmp_path), "de")
    for prompt in ("p5", "p7"):
        assert "No pair: the prompt is part of the evaluation data" in shown[prompt].text_content()
    assert "No pair" not in shown["p6"].text_content()
    done = preview(tmp_path, files, "--count", 12, check=False)
    assert done.returncode == 1 and "form a pair, and there is none" in done.stderr and "--exclude" in done.stderr


def test_strip_places_are_linear_in_the_reward(run, page):
    folder, _ = run
    for pair in rows(folder / "pairs" / "de.jsonl"):
        svg = sections(page, "de")[pair["prompt_id"]].xpath(".//figure/*[local-name()='svg']")[0]
        x = {name: float(svg.xpath(f".//*[local-name()='text'][@class='{name}']/@x")[0].rstrip("%")) for name in ("target", "rejected", "chosen")}  # fmt: skip
        value = {"target": pair["target"], "rejected": pair["rejected_reward"], "chosen": pair["chosen_reward"]}
        share = (x["rejected"] - x["target"]) / (x["chosen"] - x["target"])
        assert share == pytest.approx((value["rejected"] - value["target"]) / (value["chosen"] - value["target"]), abs=2e-3)  # fmt: skip
        assert all(0 <= place <= 100 for place in x.values()) and x["chosen"] == max(x.values())


def test_page_is_one_inert_file(page):
    assert not page.xpath("//script | //link | //iframe | //img | //h1[@onclick] | //*[@src] | //@*[starts-with(name(), 'on')]")  # fmt: skip
    assert all(link.startswith("#") and page.xpath("//*[@id=$id]", id=link[1:]) for link in page.xpath("//@href"))
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids)) and {"agreement", "en", "de"} <= set(ids)
    assert HOSTILE[0] in page.text_content() and "{{ 7 * 7 }}" in page.text_content()


def test_draw_is_seeded_parallel_and_grows_at_its_end(tmp_path):
    files = make_run(tmp_path, prompts=40, samples=4)
    drawn = {}
    for name, options in {"few": ["--count", 5], "more": ["--count", 9], "other": ["--count", 5, "--seed", 1]}.items():
        (tmp_path / name).mkdir()
        preview(tmp_path / name, files, *options)
        page = parse(tmp_path / name)
        drawn[name] = list(sections(page, "en"))
        assert drawn[name] == list(sections(page, "de"))
    assert len(drawn["few"]) == 5 and drawn["more"][:5] == drawn["few"] and set(drawn["other"]) != set(drawn["few"])


def test_same_inputs_same_bytes(run):
    folder, files = run
    written = ["page.html", "ballots/en.csv", "ballots/de.csv", "ballots/agreement.csv"]
    before = [(folder / name).read_bytes() for name in written]
    preview(folder, files, "--count", 12)
    assert before == [(folder / name).read_bytes() for name in written]
    manifest = json.loads((folder / "page.manifest.json").read_text())
    assert manifest["drawn"] == {"en": 12, "de": 12} and manifest["ballots"] == {"en": 11, "de": 11}
    assert all(len(manifest["inputs"][str(path)]) == 32 for name in ("source", "pairs", "scores") for path in files[name])  # fmt: skip


def test_ballots_are_blind_and_balanced(tmp_path):
    """Over 400 prompts a fair order puts the chosen answer first 160 to 240 times but for odds of 1 in 10,000."""
    files = make_run(tmp_path, languages=["de"], prompts=400, samples=3, text=lambda i, j: f"text {i} number {j}")
    preview(tmp_path, files, "--count", 400)
    raw = (tmp_path / "ballots" / "de.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfprompt_id,prompt,answer_a,answer_b,vote,comment\r\n") and raw.endswith(b"\r\n")
    ballot = read_ballot(tmp_path / "ballots" / "de.csv")
    pairs = {pair["prompt_id"]: pair for pair in rows(tmp_path / "pairs" / "de.jsonl")}
    assert len(ballot) == len(pairs) and {line["prompt_id"] for line in ballot} == pairs.keys()
    first = 0
    for line in ballot:
        pair = pairs[line["prompt_id"]]
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert {line["answer_a"], line["answer_b"]} == {chosen, rejected} and line["vote"] == line["comment"] == ""
        assert pair["prompt"][-1]["content"] in line["prompt"]
        first += line["answer_a"] == chosen
    assert 160 <= first <= 240


def test_no_cell_of_a_ballot_is_a_formula(run):
    folder, _ = run
    cells = [cell for code in ("en", "de") for line in read_ballot(folder / "ballots" / f"{code}.csv") for cell in line.values()]  # fmt: skip
    assert not [cell for cell in cells if cell.strip().startswith(FORMULA)]
    assert {cell[:2] for cell in cells if cell.startswith("'")} >= {"'=", "'-", "'@"}


@given(st.text() | st.tuples(st.sampled_from(["", " ", "\n", "'"]), st.sampled_from([*FORMULA, "1/2", "007", "3"]), st.text()).map("".join))  # fmt: skip
def test_guarded_cells_are_safe_and_recognised(text):
    assert not guard_text(text).strip().startswith(FORMULA)
    assert normalise(guard_text(text)) == normalise(text) == normalise(guard_text(text).replace("\n", "\r\n"))


@pytest.mark.parametrize(("text", "cell"), [("12", "12"), ("007", "'007"), ("3/4", "'3/4"), ("-5", "'-5"), ("12 Äpfel", "12 Äpfel")])  # fmt: skip
def test_numbers_that_spreadsheets_rewrite_are_guarded(text, cell):
    assert guard_text(text) == cell


def wilson(agree, decided):
    """The 95 % score interval, by its formula."""
    z, share = 1.959963984540054, agree / decided
    middle, half = share + z * z / 2 / decided, z * math.sqrt(share * (1 - share) / decided + z * z / 4 / decided**2)
    return (middle - half) / (1 + z * z / decided), (middle + half) / (1 + z * z / decided)


def test_votes_put_back_give_the_agreement(run, tmp_path):
    folder, files = run
    rng, votes, heard = random.Random(4), [], {}
    for name, delimiter in (("de.anna", ","), ("de.ben", ";"), ("de", "\t")):
        lines = read_ballot(folder / "ballots" / "de.csv")
        pairs = {pair["prompt_id"]: pair for pair in rows(folder / "pairs" / "de.jsonl")}
        for line in lines:
            vote = rng.choice(["a", "b", "a", "b", "tie", ""])
            line["vote"], line["comment"] = rng.choice([vote, vote.upper(), f" {vote} "]), "<i>both</i> poor"
            chosen = normalise(pairs[line["prompt_id"]]["chosen"][0]["content"])
            if name == "de.ben":  # a spreadsheet that takes the apostrophes
                line.update({cell: line[cell].removeprefix("'") for cell in ("answer_a", "answer_b")})
            if vote:
                kind = "tie" if vote == "tie" else normalise(line[f"answer_{vote}"]) == chosen
                heard.setdefault(line["prompt_id"], []).append(kind)
        votes.append(write_ballot(tmp_path / "votes" / f"{name}.csv", lines, delimiter))
    (tmp_path / "ballots").mkdir()
    before = [path.read_bytes() for path in votes]
    preview(tmp_path, files, "--count", 12, "--votes", *votes)
    assert before == [path.read_bytes() for path in votes]
    everything = [kind for kinds in heard.values() for kind in kinds]
    agree, decided = everything.count(True), everything.count(True) + everything.count(False)
    low, high = wilson(agree, decided)
    table = {line["language"]: line for line in read_ballot(tmp_path / "ballots" / "agreement.csv")}
    assert list(table) == ["en", "de", "all"]
    assert table["en"] == {"language": "en", "votes": "0", "ties": "0", "agree": "0", "agreement": "", "ci_low": "", "ci_high": ""}  # fmt: skip
    for code in ("de", "all"):
        numbers = {name: float(value) for name, value in table[code].items() if name != "language"}
        assert numbers == pytest.approx({"votes": len(everything), "ties": everything.count("tie"), "agree": agree, "agreement": agree / decided, "ci_low": low, "ci_high": high})  # fmt: skip
    page, compared, same = parse(tmp_path), 0, 0
    for kinds in heard.values():
        for i in range(len(kinds)):
            for j in range(i):
                compared, same = compared + 1, same + (kinds[i] == kinds[j])
    cells = [cell.text_content() for cell in page.xpath("//h2[@id='agreement']/following::table[1]/tbody/tr[2]/*")]
    assert cells == ["de", str(len(everything)), str(everything.count("tie")), str(agree), f"{agree / decided:.3f}", f"{low:.3f} to {high:.3f}", f"{same / compared:.3f} of {compared}"]  # fmt: skip
    assert "<i>both</i> poor" in page.text_content()
    for prompt_id, kinds in heard.items():
        said = f"Votes: {kinds.count(True)} chosen, {kinds.count(False)} rejected, {kinds.count('tie')} tie."
        assert said in sections(page, "de")[prompt_id].text_content()


BAD = {
    "vote": (lambda lines: lines[1].update(vote="="), "field vote: 'p.*': '=' is not a vote"),
    "unknown": (lambda lines: lines[1].update(prompt_id="p99"), "field prompt_id: 'p99' is not on the ballot"),
    "answer": (
        lambda lines: lines[1].update(answer_b="other"),
        "field answer_b: 'p.*': the answer is not the ballot's",
    ),
    "swapped": (
        lambda lines: lines[1].update(answer_a=lines[1]["answer_b"], answer_b=lines[1]["answer_a"]),
        "field answer_a",
    ),
    "twice": (lambda lines: lines.insert(1, lines[0]), "field prompt_id: duplicate 'p.*', first on line 2"),
    "column": (lambda lines: [line.pop("vote") for line in lines], "no column vote"),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_ballot_is_refused_with_its_line(run, tmp_path, damage):
    folder, files = run
    lines = [{**line, "prompt": "one line", "vote": "a"} for line in read_ballot(folder / "ballots" / "de.csv")]
    mend, message = BAD[damage]
    # One line of the file a row, so that the line is known.
    lines = [line for line in lines if "\n" not in line["answer_a"] + line["answer_b"]]
    mend(lines)
    path = write_ballot(tmp_path / "votes" / "de.anna.csv", lines)
    done = preview(tmp_path, files, "--count", 12, "--votes", path, check=False)
    number = 1 if damage == "column" else 3
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Remedy: " in done.stderr
    assert re.search(f"error: {re.escape(str(path))}:{number}(: |, ){message}", done.stderr), done.stderr
    assert not (tmp_path / "page.html").exists() and not (tmp_path / "ballots").exists()


def test_other_files_than_filled_ballots_are_refused(run, tmp_path):
    folder, files = run
    lines = read_ballot(folder / "ballots" / "de.csv")
    good = write_ballot(tmp_path / "de.anna.csv", lines)
    lines[0]["comment"] = "schön"
    cases = {
        "'mt' is not one of the languages en, de": [write_ballot(tmp_path / "mt.csv", lines)],
        "not valid UTF-8": [
            write_ballot(tmp_path / "de.latin.csv", [{**line, "answer_a": "ä"} for line in lines], encoding="latin1")
        ],
        "the same file twice": [good, good],
        "no such file": [tmp_path / "de.missing.csv"],
        "votes in the folder of blank ballots": [folder / "ballots" / "de.csv"],
        "no column prompt_id": [tmp_path / "de.empty.csv"],
        "more cells than columns": [tmp_path / "de.wide.csv"],
    }
    (tmp_path / "de.empty.csv").write_text("")
    (tmp_path / "de.wide.csv").write_text(good.read_text(encoding="utf-8") + "p1,x,y,z,a,c,extra\n", encoding="utf-8")
    for message, paths in cases.items():
        target = folder if "blank" in message else tmp_path
        done = preview(target, files, "--count", 12, "--votes", *paths, check=False)
        assert done.returncode == 1 and message in done.stderr and "Remedy: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_filled_ballot_is_never_overwritten(tmp_path):
    files = make_run(tmp_path, prompts=6)
    preview(tmp_path, files)
    ballot = tmp_path / "ballots" / "de.csv"
    filled, page = ballot.read_bytes().replace(b",,\r\n", b",a,\r\n"), (tmp_path / "page.html").read_bytes()
    ballot.write_bytes(filled)
    done = preview(tmp_path, files, check=False)
    assert done.returncode == 1 and f"{ballot}: there is another ballot" in done.stderr and "--votes" in done.stderr
    assert ballot.read_bytes() == filled and (tmp_path / "page.html").read_bytes() == page
    votes = tmp_path / "votes" / "de.csv"
    votes.parent.mkdir()
    ballot.rename(votes)
    preview(tmp_path, files, "--votes", votes)
    assert read_ballot(tmp_path / "ballots" / "agreement.csv")[1]["votes"] == "5"
    assert ballot.read_bytes() == filled.replace(b",a,\r\n", b",,\r\n")


def test_pool_is_the_one_the_pairs_were_built_from(tmp_path):
    """--pool-size and hygiene: what left the pool is shown with its reason and counts in no mean."""

    def identified(language, samples):
        return ["fr" if j == 1 else None if j == 2 else language for j in range(samples)]

    build = ("--pool-size", 7, "--hygiene", "truncated", "wrong_language")
    files = make_run(tmp_path, languages=["de"], identified=identified, build=build)
    preview(tmp_path, files, "--pool-size", 7, "--count", 12)
    section = sections(parse(tmp_path), "de")["p1"]
    left_out = {name: answer for name in ("truncated", "wrong_language") for answer in section.xpath("./details/div") if f"excluded from the pool: {name}" in answer.text_content()}  # fmt: skip
    responses = rows(tmp_path / "generations" / "de.jsonl")[1]["responses"]
    assert same_text(text_of(left_out["truncated"]), responses[5]["text"])
    assert same_text(text_of(left_out["wrong_language"]), responses[1]["text"])
    assert "5 responses in the pool" in section.text_content() and "5 other responses" in section.text_content()
    done = preview(tmp_path, files, "--count", 12, check=False)
    assert done.returncode == 1 and "the pair was not formed from these 6 responses" in done.stderr and "--pool-size" in done.stderr  # fmt: skip
    del files["identified"]
    done = preview(tmp_path, files, "--pool-size", 7, check=False)
    assert done.returncode == 1 and "give --identified" in done.stderr


def test_random_pairs_have_no_target(tmp_path):
    files = make_run(tmp_path, languages=["de"], build=("--rejected", "random"))
    preview(tmp_path, files, "--count", 12)
    page = parse(tmp_path)
    assert len(page.xpath("//*[local-name()='text'][@class='chosen']")) == 12
    assert not page.xpath("//*[local-name()='text'][@class='target']") and "target \N{EN DASH}" in page.text_content()


def test_files_of_another_run_are_refused(run, tmp_path):
    _, files = run
    other = make_run(tmp_path / "other", seed=9)
    short = write_rows(tmp_path / "short.jsonl", rows(files["scores"][0])[:5])
    unknown = write_rows(tmp_path / "pairs.jsonl", [*rows(files["pairs"][0]), {**rows(files["pairs"][0])[0], "prompt_id": "q"}])  # fmt: skip
    cases = {
        "the ledger is of pair in de": {"ledger": files["ledger"][::-1]},
        "the pair was not formed from these": {"scores": other["scores"]},
        "the file ends": {"scores": [short, files["scores"][1]]},
        "rows of different languages: de, en": {"prompts": files["prompts"][::-1]},
        "'q'": {"pairs": [unknown, files["pairs"][1]]},
        "none.json: no such file": {"ledger": [tmp_path / "none.json", files["ledger"][1]]},
    }
    for message, change in cases.items():
        done = preview(tmp_path, {**files, **change}, "--count", 12, check=False)
        assert done.returncode == 1 and message in done.stderr and "Remedy: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "page.html").exists()
    done = preview(tmp_path, {**files, "ledger": files["ledger"][:1]}, check=False)
    assert done.returncode == 1 and "one value per language" in done.stderr
