"""Which language a text is in: croco.text.language and scripts/identify.py."""

import json
import time

import pytest
from conftest import rows, script, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from croco.text.language import can_identify, detect_language, strip_code

MEDIUM = {
    "da": "Min søster bor i en lille by ved havet, og hver sommer cykler vi sammen ud til stranden for at bade. Om aftenen laver vi mad af de grøntsager, som hun selv har dyrket i haven.",
    "nl": "Mijn zus woont in een klein dorp aan zee, en elke zomer fietsen we samen naar het strand om te zwemmen. 's Avonds koken we met de groenten die ze zelf in haar tuin heeft gekweekt.",
    "en": "My sister lives in a small town by the sea, and every summer we cycle to the beach together for a swim. In the evening we cook with the vegetables that she has grown in her garden.",
    "fr": "Ma sœur habite une petite ville au bord de la mer, et chaque été nous allons ensemble à la plage à vélo pour nous baigner. Le soir, nous cuisinons les légumes qu'elle a fait pousser dans son jardin.",
    "de": "Meine Schwester wohnt in einer kleinen Stadt am Meer, und jeden Sommer fahren wir zusammen mit dem Fahrrad zum Strand. Abends kochen wir mit dem Gemüse, das sie selbst im Garten angebaut hat.",
    "it": "Mia sorella abita in una piccola città sul mare, e ogni estate andiamo insieme in bicicletta alla spiaggia per fare il bagno. La sera cuciniamo le verdure che ha coltivato lei stessa nell'orto.",
    "es": "Mi hermana vive en un pueblo pequeño junto al mar, y todos los veranos vamos juntos en bicicleta a la playa para bañarnos. Por la noche cocinamos con las verduras que ella misma ha cultivado en el huerto.",
    "gl": "A miña irmá vive nunha vila pequena á beira do mar, e todos os veráns imos xuntos en bicicleta á praia para bañarnos. Pola noite cociñamos coas verduras que ela mesma cultivou na horta.",
    "ga": "Tá mo dheirfiúr ina cónaí i mbaile beag cois farraige, agus gach samhradh téimid le chéile ar na rothair go dtí an trá chun snámh. Sa tráthnóna déanaimid béile leis na glasraí a d'fhás sí féin sa ghairdín.",
    "mt": "Oħti tgħix f'raħal żgħir ħdejn il-baħar, u kull sajf immorru flimkien bir-rota sax-xatt biex ngħumu. Filgħaxija nsajru bil-ħaxix li tkun kabbret hi stess fil-ġnien tagħha.",
    "cy": "Mae fy chwaer yn byw mewn tref fach ger y môr, a phob haf rydyn ni'n beicio gyda'n gilydd i'r traeth i nofio. Gyda'r nos byddwn ni'n coginio'r llysiau y mae hi wedi'u tyfu yn ei gardd.",
    "no": "Søsteren min bor i en liten by ved sjøen, og hver sommer sykler vi sammen ut til stranda for å bade. Om kvelden lager vi mat av grønnsakene som hun har dyrket selv i hagen.",
    "sv": "Min syster bor i en liten stad vid havet, och varje sommar cyklar vi tillsammans till stranden för att bada. På kvällen lagar vi mat av grönsakerna som hon själv har odlat i trädgården.",
    "pt": "A minha irmã vive numa pequena cidade junto ao mar, e todos os verões vamos juntos de bicicleta à praia para tomar banho. À noite cozinhamos com os legumes que ela própria cultivou na horta.",
    "fi": "Sisareni asuu pienessä kaupungissa meren rannalla, ja joka kesä pyöräilemme yhdessä rannalle uimaan. Illalla laitamme ruokaa vihanneksista, jotka hän on itse kasvattanut puutarhassaan.",
}
SHORT = {
    "da": "Hvad koster det at køre med toget til København?",
    "nl": "Hoeveel kost een treinkaartje naar Utrecht?",
    "en": "How much does a ticket to London cost?",
    "fr": "Combien coûte un billet de train pour Lyon ?",
    "de": "Wie viel kostet eine Fahrkarte nach Hamburg?",
    "it": "Quanto costa un biglietto per andare a Roma?",
    "es": "¿Cuánto cuesta un billete de tren a Sevilla?",
    "gl": "Canto custa un billete de tren ata a Coruña?",
    "ga": "Cé mhéad atá ar thicéad go Gaillimh?",
    "mt": "Kemm jiswa l-biljett tal-ferry għal Għawdex?",
    "cy": "Faint mae tocyn trên i Gaerdydd yn ei gostio?",
    "no": "Hvor mye koster det å ta toget til Bergen?",
    "sv": "Hur mycket kostar en tågbiljett till Göteborg?",
    "pt": "Quanto custa um bilhete de comboio para o Porto?",
    "fi": "Paljonko junalippu Tampereelle maksaa?",
}
NYNORSK = (
    "Eg veit ikkje kva ho heiter, men dei seier at ho kjem frå ein liten stad på Vestlandet og skal bu her i vinter."
)
OTHERS = {
    "ru": "Моя сестра живёт в маленьком городе у моря, и каждое лето мы вместе ездим на пляж.",  # noqa: RUF001
    "pl": "Moja siostra mieszka w małym mieście nad morzem i każdego lata jeździmy razem na plażę.",
    "zh": "我的姐姐住在海边的一个小镇上，每年夏天我们都一起骑自行车去海滩游泳。",  # noqa: RUF001
    "ca": "La meva germana viu en un poble petit a la vora del mar, i cada estiu anem plegats a la platja amb bicicleta.",
    "eu": "Nire arreba itsasertzeko herri txiki batean bizi da, eta udaro elkarrekin joaten gara hondartzara bizikletaz.",
}
CODE = "```python\nfor language in languages:\n    print(language, counts[language])\n```"


@pytest.mark.parametrize("language", MEDIUM)
def test_medium_sentences_are_identified_in_every_pool(language):
    assert {detect_language(MEDIUM[language], pool) for pool in MEDIUM} == {language}


@pytest.mark.parametrize("language", SHORT)
def test_short_sentences_are_identified_in_their_own_pool_and_told_from_english(language):
    assert detect_language(SHORT[language], language) == language
    assert detect_language(SHORT[language], "en") == language


@pytest.mark.parametrize("language", OTHERS)
def test_languages_outside_the_project_are_not_taken_for_one_of_it(language):
    assert {detect_language(OTHERS[language], pool) for pool in MEDIUM} == {language}


def test_norwegian_is_one_language_and_a_region_makes_no_other():
    assert detect_language(NYNORSK, "no") == "no" and detect_language(NYNORSK, "en") == "no"
    assert detect_language(NYNORSK, "nn") == "nn" and detect_language(MEDIUM["no"], "nb") == "nb"
    assert detect_language(MEDIUM["pt"], "pt_BR") == "pt_BR" and detect_language(MEDIUM["pt"], "es") == "pt"


@pytest.mark.parametrize("both", ["Jeg har en bil og en hund i huset", "Han skal spise middag med familien."])
def test_words_of_two_languages_are_judged_in_favour_of_the_pool(both):
    assert detect_language(both, "da") == "da" and detect_language(both, "no") == "no"
    assert detect_language("Todos los problemas son importantes", "gl") == "es"
    assert detect_language("Os problemas son moi importantes", "es") == "gl"


def test_relatives_left_out_of_other_pools_are_known_in_their_own():
    afrikaans = "My suster woon in 'n klein dorpie by die see en ons gaan elke somer saam met die fiets strand toe."
    assert detect_language(afrikaans, "af") == "af" and detect_language(afrikaans, "nl") != "af"


@pytest.mark.parametrize(
    "text",
    ["", "Ja, gerne!", "3 + 4 = 7", "🙂" * 40, CODE, f"Ok:\n{CODE}\n{CODE}", CODE.removesuffix("```"),
     "$$\\sum_{index} weights_{index} \\cdot values_{index}$$", "`SELECT name FROM people`",
     "https://example.org/eine/lange/adresse/mit/vielen/woertern", "\\[ \\text{Energie} = masse \\]"],
)  # fmt: skip
def test_code_and_short_texts_are_not_determinable(text):
    assert all(detect_language(text, pool) is None for pool in MEDIUM)


@pytest.mark.parametrize(
    ("language", "names"),
    [("de", "Paris, London, Berlin, Madrid, Rom, Wien"), ("sv", "Messi, Ronaldo, Neymar, Mbappé, Haaland"),
     ("fi", "Albert Einstein, Isaac Newton, Marie Curie"), ("de", "William Shakespeare, Romeo und Julia"),
     ("ja", "織田信長、豊臣秀吉、徳川家康"), ("de", "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7 6. Re1 b5"),
     ("de", " ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))],
)  # fmt: skip
def test_names_and_moves_are_in_no_language(language, names):
    assert detect_language(names, language) is detect_language(names, "en") is None


@pytest.mark.parametrize(
    ("language", "text"),
    [("zh", "法国的首都是巴黎。"), ("zh", "是的，你说得对。"), ("ja", "フランスの首都はパリです。"),  # noqa: RUF001
     ("ko", "프랑스의 수도는 파리입니다."), ("th", "กรุงปารีส"), ("km", "ទីក្រុងប៉ារីស")],
)  # fmt: skip
def test_few_characters_suffice_where_each_tells_much(language, text):
    assert detect_language(text, language) == language and detect_language(text, "de") == language
    assert detect_language(text[:1], language) is None


def test_bosnian_croatian_and_serbian_are_one_language():
    text = "Glavni grad Srbije je Beograd, koji se nalazi na ušću Save u Dunav."
    assert {detect_language(text, code) for code in ("bs", "hr", "sr", "sr_Latn")} == {"bs", "hr", "sr", "sr_Latn"}
    assert detect_language(text, "de") == "sh"


def test_language_that_is_unknown_to_the_model_gives_none():
    assert not can_identify("xx") and detect_language(MEDIUM["de"], "xx") is None
    assert all(map(can_identify, MEDIUM)) and can_identify("nb") and can_identify("eu")


@pytest.mark.parametrize("language", SHORT)
def test_code_does_not_change_the_language_of_the_prose(language):
    assert detect_language(f"{CODE}\n\n{MEDIUM[language]}\n\n{CODE}", "en") == language


@pytest.mark.parametrize("opening", ["1. ", "Hier ist der Code: ", "> - ", "  "])
def test_a_fence_may_open_behind_other_text(opening):
    text = f"{opening}{CODE}\n\n{MEDIUM['de']}"
    assert "language" not in strip_code(text) and MEDIUM["de"] in strip_code(text)
    assert detect_language(text, "de") == "de"


@pytest.mark.parametrize(
    ("language", "prose"),
    [
        ("zh", "可以看到更多的信息，这个网站每天都会更新，欢迎大家常来看看。"),  # noqa: RUF001
        ("ja", "をご覧ください。詳しい説明や写真がたくさん載っていて、とても役に立ちます。"),
        ("th", "มีข้อมูลเพิ่มเติมเกี่ยวกับการท่องเที่ยวและอาหารของประเทศนี้มากมาย"),
    ],
)
def test_an_address_takes_no_prose_without_spaces_with_it(language, prose):
    text = f"https://example.org/a/b?c=d#e{prose}"
    assert strip_code(text) == f" {prose}"
    assert detect_language(text, language) == language and detect_language(text, "de") == language


def test_prices_and_stray_marks_stay_in_the_text():
    kept = "It costs $5 or $6 (US$5/US$6), 2 * 3 > 5, and ~~~ or a stray ` do no harm."
    assert strip_code(kept) == kept


@given(st.text(alphabet="`~$\\[](){}\n ab*>", max_size=400))
def test_stripping_only_takes_away(text):
    letters = iter(text)
    assert all(letter in letters for letter in strip_code(text) if letter.isalpha())


@pytest.mark.parametrize(
    "piece", ["\\[", "\\(", "$a", "$$ a ", "`", "`a", "~~~\n", "~", "- > ", "\\begin{a}", "\n```a", "www."]
)
def test_stripping_takes_no_time_on_degenerate_responses(piece):
    before = time.perf_counter()
    strip_code(piece * (40_000 // len(piece)))
    assert time.perf_counter() - before < 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(SHORT.values())), st.sampled_from([*SHORT, "eu", "af", "sw", "xx"]))))
def test_what_else_was_identified_changes_nothing(calls):
    before = {language: detect_language(text, language) for language, text in SHORT.items()}
    for text, language in calls:
        detect_language(text, language)
    assert {language: detect_language(text, language) for language, text in SHORT.items()} == before


@pytest.fixture
def files(tmp_path):
    """40 German prompts and their responses, some skipped, some with equal or undeterminable responses."""
    texts = [*MEDIUM.values(), *SHORT.values(), NYNORSK, CODE, "Ja."]
    prompts = [{"prompt_id": f"p{i}", "language": "de", "messages": [{"role": "user", "content": f"Frage {i}"}]} for i in range(40)]  # fmt: skip
    generations = [
        {"prompt_id": f"p{i}", "language": "de", "responses": [{"text": texts[(i * k) % len(texts)], "finish_reason": "stop"} for k in range(i % 9)]}
        for i in range(40)
    ]  # fmt: skip
    return write_rows(tmp_path / "prompts.jsonl", prompts), write_rows(tmp_path / "generations.jsonl", generations)


def run(files, output, *options, language="de", check=True):
    prompts, generations = files
    return script("identify", "--prompts", prompts, "--generations", generations, "--language", language, "--output", output, *options, check=check)  # fmt: skip


def test_codes_are_parallel_to_the_responses_and_the_same_for_any_number_of_processes(files, tmp_path):
    run(files, tmp_path / "one.jsonl")
    run(files, tmp_path / "two.jsonl", "--processes", 2)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    lines, generations = rows(tmp_path / "one.jsonl"), rows(files[1])
    assert [line["prompt_id"] for line in lines] == [f"p{i}" for i in range(40)]
    for line, generation in zip(lines, generations, strict=True):
        assert line["languages"] == [detect_language(response["text"], "de") for response in generation["responses"]]
    codes = [code for line in lines for code in line["languages"]]
    counts = json.loads((tmp_path / "one.manifest.json").read_text())["counts"]
    assert counts["prompts"] == 40 and counts["responses"] == len(codes)
    assert counts["undetermined"] == codes.count(None) > 0
    assert counts["identified"] == {code: codes.count(code) for code in sorted(set(codes) - {None})}


@pytest.mark.parametrize("processes", [1, 2])
def test_files_that_do_not_fit_end_with_one_message(files, tmp_path, processes):
    write_rows(files[1], rows(files[1])[:-1])
    done = run(files, tmp_path / "o.jsonl", "--processes", processes, check=False)
    assert done.returncode == 1 and "p39" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_another_language_or_another_text_of_a_prompt_is_refused(files, tmp_path):
    done = run(files, tmp_path / "o.jsonl", language="nl", check=False)
    assert done.returncode == 1 and "p0 is in de, not nl" in done.stderr
    lines = rows(files[1])
    lines[7]["prompt_digest"] = "0" * 32
    write_rows(files[1], lines)
    done = run(files, tmp_path / "o.jsonl", check=False)
    assert done.returncode == 1 and "another text" in done.stderr
