"""The miniature's world: parallel questions, answers of known quality, and the oracle that judges them.

Six families of questions exist in every language under the same prompt ids. Five of them are used for
training, development and held-out evaluation, split by fact; the sixth (``before``) is never tuned on
and shows forgetting. Answers are drawn from a mixture of good and bad ones, so that preference tuning can
improve a model that was trained on them.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TUNED_FAMILIES = ("add", "larger", "after", "opposite", "capital")
UNTOUCHED_FAMILY = "before"
SPLITS = {"train": 0.60, "dev": 0.15, "heldout": 0.25}
HEDGE = "..."

# Two phrasings of the question and one answer per family; a and b are the question's terms, v is the value.
PHRASES: dict[str, dict[str, Any]] = {
    "en": {
        "add": ("What is {a} plus {b}?", "Add {a} and {b}.", "{a} plus {b} is {v}."),
        "larger": ("Which is larger, {a} or {b}?", "Name the larger number: {a} or {b}.", "The larger number is {v}."),
        "after": ("Which number comes after {a}?", "Count on by one from {a}.", "After {a} comes {v}."),
        "before": ("Which number comes before {a}?", "Count back by one from {a}.", "Before {a} comes {v}."),
        "opposite": ("What is the opposite of {a}?", "Name the opposite: {a}.", "The opposite of {a} is {v}."),
        "capital": ("{a}: what is its capital?", "Name the capital of this country: {a}.", "The capital is {v}."),
        "evasive": "I do not know.",
        "filler": "That is a good question and many people ask it.",
        "label": "Answer: {v}",
    },
    "de": {
        "add": ("Was ist {a} plus {b}?", "Addiere {a} und {b}.", "{a} plus {b} ist {v}."),
        "larger": (
            "Was ist größer, {a} oder {b}?",
            "Nenne die größere Zahl: {a} oder {b}.",
            "Die größere Zahl ist {v}.",
        ),
        "after": ("Welche Zahl kommt nach {a}?", "Zähle um eins weiter von {a}.", "Nach {a} kommt {v}."),
        "before": ("Welche Zahl kommt vor {a}?", "Zähle um eins zurück von {a}.", "Vor {a} kommt {v}."),
        "opposite": ("Was ist das Gegenteil von {a}?", "Nenne das Gegenteil: {a}.", "Das Gegenteil von {a} ist {v}."),
        "capital": (
            "{a}: wie heißt die Hauptstadt?",
            "Nenne die Hauptstadt dieses Landes: {a}.",
            "Die Hauptstadt ist {v}.",
        ),
        "evasive": "Ich weiß es nicht.",
        "filler": "Das ist eine gute Frage und viele Leute stellen sie.",
        "label": "Antwort: {v}",
    },
    "nl": {
        "add": ("Wat is {a} plus {b}?", "Tel {a} en {b} op.", "{a} plus {b} is gelijk aan {v}."),
        "larger": ("Wat is groter, {a} of {b}?", "Noem het grootste getal: {a} of {b}.", "Het grootste getal is {v}."),
        "after": ("Welk getal komt na {a}?", "Tel één verder vanaf {a}.", "Na {a} komt {v}."),
        "before": ("Welk getal komt voor {a}?", "Tel één terug vanaf {a}.", "Voor {a} komt {v}."),
        "opposite": ("Wat is het tegendeel van {a}?", "Noem het tegendeel: {a}.", "Het tegendeel van {a} is {v}."),
        "capital": ("{a}: wat is de hoofdstad?", "Noem de hoofdstad van dit land: {a}.", "De hoofdstad is {v}."),
        "evasive": "Ik weet het niet.",
        "filler": "Dat is een goede vraag en veel mensen stellen die.",
        "label": "Antwoord: {v}",
    },
    "fr": {
        "add": ("Combien font {a} plus {b} ?", "Additionne {a} et {b}.", "{a} plus {b} font {v}."),
        "larger": (
            "Qui est plus grand, {a} ou {b} ?",
            "Donne le plus grand nombre : {a} ou {b}.",
            "Le plus grand nombre est {v}.",
        ),
        "after": ("Quel nombre vient après {a} ?", "Compte un de plus que {a}.", "Après {a} vient {v}."),
        "before": ("Quel nombre vient avant {a} ?", "Compte un de moins que {a}.", "Avant {a} vient {v}."),
        "opposite": ("Quel est le contraire de {a} ?", "Donne le contraire : {a}.", "Le contraire de {a} est {v}."),
        "capital": ("{a} : quelle est la capitale ?", "Donne la capitale de ce pays : {a}.", "La capitale est {v}."),
        "evasive": "Je ne sais pas.",
        "filler": "C'est une bonne question et beaucoup de gens la posent.",
        "label": "Réponse : {v}",
    },
    "es": {
        "add": ("¿Cuánto es {a} más {b}?", "Suma {a} y {b}.", "{a} más {b} son {v}."),
        "larger": ("¿Qué es mayor, {a} o {b}?", "Di el número mayor: {a} o {b}.", "El número mayor es {v}."),
        "after": ("¿Qué número va después de {a}?", "Cuenta uno más desde {a}.", "Después de {a} va {v}."),
        "before": ("¿Qué número va antes de {a}?", "Cuenta uno menos desde {a}.", "Antes de {a} va {v}."),
        "opposite": ("¿Cuál es el contrario de {a}?", "Di el contrario: {a}.", "El contrario de {a} es {v}."),
        "capital": ("{a}: ¿cuál es la capital?", "Di la capital de este país: {a}.", "La capital es {v}."),
        "evasive": "No lo sé.",
        "filler": "Es una buena pregunta y mucha gente la hace.",
        "label": "Respuesta: {v}",
    },
    "it": {
        "add": ("Quanto fa {a} più {b}?", "Somma {a} e {b}.", "{a} più {b} fa {v}."),
        "larger": (
            "Quale è maggiore, {a} o {b}?",
            "Indica il numero maggiore: {a} o {b}.",
            "Il numero maggiore è {v}.",
        ),
        "after": ("Quale numero viene dopo {a}?", "Conta uno in più da {a}.", "Dopo {a} viene {v}."),
        "before": ("Quale numero viene prima di {a}?", "Conta uno in meno da {a}.", "Prima di {a} viene {v}."),
        "opposite": ("Qual è il contrario di {a}?", "Indica il contrario: {a}.", "Il contrario di {a} è {v}."),
        "capital": ("{a}: qual è la capitale?", "Indica la capitale di questo paese: {a}.", "La capitale è {v}."),
        "evasive": "Non lo so.",
        "filler": "È una bella domanda e molte persone la fanno.",
        "label": "Risposta: {v}",
    },
    "da": {
        "add": ("Hvad er {a} plus {b}?", "Læg {a} og {b} sammen.", "{a} plus {b} giver {v}."),
        "larger": ("Hvad er størst, {a} eller {b}?", "Nævn det største tal: {a} eller {b}.", "Det største tal er {v}."),
        "after": ("Hvilket tal kommer efter {a}?", "Tæl en frem fra {a}.", "Efter {a} kommer {v}."),
        "before": ("Hvilket tal kommer før {a}?", "Tæl en tilbage fra {a}.", "Før {a} kommer {v}."),
        "opposite": ("Hvad er det modsatte af {a}?", "Nævn det modsatte: {a}.", "Det modsatte af {a} er {v}."),
        "capital": ("{a}: hvad hedder hovedstaden?", "Nævn dette lands hovedstad: {a}.", "Hovedstaden er {v}."),
        "evasive": "Det ved jeg ikke.",
        "filler": "Det er et godt spørgsmål, og mange stiller det.",
        "label": "Svar: {v}",
    },
}
LANGUAGES = tuple(PHRASES)

OPPOSITES = {
    "en": "big small hot cold old young long short fast slow rich poor strong weak full empty clean dirty early late heavy light high low",
    "de": "groß klein heiß kalt alt jung lang kurz schnell langsam reich arm stark schwach voll leer sauber schmutzig früh spät schwer leicht hoch niedrig",
    "nl": "groot klein heet koud oud jong lang kort snel langzaam rijk arm sterk zwak vol leeg schoon vuil vroeg laat zwaar licht hoog laag",
    "fr": "grand petit chaud froid vieux jeune long court rapide lent riche pauvre fort faible plein vide propre sale tôt tard lourd léger haut bas",
    "es": "grande pequeño caliente frío viejo joven largo corto rápido lento rico pobre fuerte débil lleno vacío limpio sucio temprano tarde pesado ligero alto bajo",
    "it": "grande piccolo caldo freddo vecchio giovane lungo corto veloce lento ricco povero forte debole pieno vuoto pulito sporco presto tardi pesante leggero alto basso",
    "da": "stor lille varm kold gammel ung lang kort hurtig langsom rig fattig stærk svag fuld tom ren beskidt tidlig sen tung let høj lav",
}  # fmt: skip
COUNTRIES = {
    "en": "France Spain Italy Germany Poland Portugal Greece Norway Sweden Denmark Finland Ireland Austria Hungary Turkey Egypt Russia Japan China Cuba Peru Iran Kenya Romania",
    "de": "Frankreich Spanien Italien Deutschland Polen Portugal Griechenland Norwegen Schweden Dänemark Finnland Irland Österreich Ungarn Türkei Ägypten Russland Japan China Kuba Peru Iran Kenia Rumänien",
    "nl": "Frankrijk Spanje Italië Duitsland Polen Portugal Griekenland Noorwegen Zweden Denemarken Finland Ierland Oostenrijk Hongarije Turkije Egypte Rusland Japan China Cuba Peru Iran Kenia Roemenië",
    "fr": "France Espagne Italie Allemagne Pologne Portugal Grèce Norvège Suède Danemark Finlande Irlande Autriche Hongrie Turquie Égypte Russie Japon Chine Cuba Pérou Iran Kenya Roumanie",
    "es": "Francia España Italia Alemania Polonia Portugal Grecia Noruega Suecia Dinamarca Finlandia Irlanda Austria Hungría Turquía Egipto Rusia Japón China Cuba Perú Irán Kenia Rumanía",
    "it": "Francia Spagna Italia Germania Polonia Portogallo Grecia Norvegia Svezia Danimarca Finlandia Irlanda Austria Ungheria Turchia Egitto Russia Giappone Cina Cuba Perù Iran Kenya Romania",
    "da": "Frankrig Spanien Italien Tyskland Polen Portugal Grækenland Norge Sverige Danmark Finland Irland Østrig Ungarn Tyrkiet Egypten Rusland Japan Kina Cuba Peru Iran Kenya Rumænien",
}  # fmt: skip
CAPITALS = {
    "en": "Paris Madrid Rome Berlin Warsaw Lisbon Athens Oslo Stockholm Copenhagen Helsinki Dublin Vienna Budapest Ankara Cairo Moscow Tokyo Beijing Havana Lima Tehran Nairobi Bucharest",
    "de": "Paris Madrid Rom Berlin Warschau Lissabon Athen Oslo Stockholm Kopenhagen Helsinki Dublin Wien Budapest Ankara Kairo Moskau Tokio Peking Havanna Lima Teheran Nairobi Bukarest",
    "nl": "Parijs Madrid Rome Berlijn Warschau Lissabon Athene Oslo Stockholm Kopenhagen Helsinki Dublin Wenen Boedapest Ankara Caïro Moskou Tokio Peking Havana Lima Teheran Nairobi Boekarest",
    "fr": "Paris Madrid Rome Berlin Varsovie Lisbonne Athènes Oslo Stockholm Copenhague Helsinki Dublin Vienne Budapest Ankara Caire Moscou Tokyo Pékin Havane Lima Téhéran Nairobi Bucarest",
    "es": "París Madrid Roma Berlín Varsovia Lisboa Atenas Oslo Estocolmo Copenhague Helsinki Dublín Viena Budapest Ankara Cairo Moscú Tokio Pekín Habana Lima Teherán Nairobi Bucarest",
    "it": "Parigi Madrid Roma Berlino Varsavia Lisbona Atene Oslo Stoccolma Copenaghen Helsinki Dublino Vienna Budapest Ankara Cairo Mosca Tokyo Pechino Avana Lima Teheran Nairobi Bucarest",
    "da": "Paris Madrid Rom Berlin Warszawa Lissabon Athen Oslo Stockholm København Helsinki Dublin Wien Budapest Ankara Cairo Moskva Tokyo Beijing Havana Lima Teheran Nairobi Bukarest",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One thing that can be asked in every language; ``terms`` index the word lists or are numbers."""

    family: str
    terms: tuple[int, ...]

    @property
    def fact_id(self) -> str:
        """Names the fact in every language."""
        return "-".join([self.family, *map(str, self.terms)])


@dataclass(frozen=True)
class Question:
    """A fact in one language and phrasing (0 or 1)."""

    fact: Fact
    language: str
    phrasing: int

    @property
    def prompt_id(self) -> str:
        """The fact's id and the phrasing, a or b."""
        return f"{self.fact.fact_id}-{'ab'[self.phrasing]}"

    @property
    def text(self) -> str:
        """The question as it is asked."""
        return PHRASES[self.language][self.fact.family][self.phrasing].format(**self._words())

    @property
    def value(self) -> str:
        """The word or number that answers the question."""
        return self._words()["v"]

    def answer(self, value: str | None = None) -> str:
        """The good answer, or the same sentence around another value."""
        words = self._words()
        return PHRASES[self.language][self.fact.family][2].format(**{**words, "v": value or words["v"]})

    def labelled(self, value: str | None = None) -> str:
        """The answer in the other policy's style: a label and the value."""
        return PHRASES[self.language]["label"].format(v=value or self.value)

    def wrong_value(self, rng: random.Random) -> str:
        """A wrong value of the same family."""
        while True:
            fact = random_fact(self.fact.family, rng)
            if fact != self.fact and (value := Question(fact, self.language, 0).value) != self.value:
                return value

    def _words(self) -> dict[str, str]:
        family, terms = self.fact.family, self.fact.terms
        if family == "add":
            return {"a": str(terms[0]), "b": str(terms[1]), "v": str(sum(terms))}
        if family == "larger":
            return {"a": str(terms[0]), "b": str(terms[1]), "v": str(max(terms))}
        if family in ("after", "before"):
            step = 1 if family == "after" else -1
            return {"a": str(terms[0]), "v": str(terms[0] + step)}
        if family == "opposite":
            words = OPPOSITES[self.language].split()
            return {"a": words[terms[0]], "v": words[terms[0] ^ 1]}
        return {"a": COUNTRIES[self.language].split()[terms[0]], "v": CAPITALS[self.language].split()[terms[0]]}


def facts(family: str) -> list[Fact]:
    """All facts of a family, in a fixed order."""
    if family == "add":
        return [Fact(family, (a, b)) for a in range(6) for b in range(6)]
    if family == "larger":
        return [Fact(family, (a, b)) for a in range(13) for b in range(13) if a != b and (a + 2 * b) % 4 == 1]
    if family in ("after", "before"):
        return [Fact(family, (a,)) for a in range(1, 21)]
    return [Fact(family, (i,)) for i in range(24)]


def random_fact(family: str, rng: random.Random) -> Fact:
    """Draws one fact of a family, each with the same probability."""
    return rng.choice(facts(family))


def split_facts(seed: int) -> dict[str, list[Fact]]:
    """Facts by split, each family divided in the same shares; pretraining sees all of them."""
    splits: dict[str, list[Fact]] = {name: [] for name in SPLITS}
    for family in TUNED_FAMILIES:
        shuffled = facts(family)
        random.Random(f"{seed}/{family}").shuffle(shuffled)
        start = 0.0
        for name, share in SPLITS.items():
            stop = start + share * len(shuffled)
            splits[name] += shuffled[round(start) : round(stop)]
            start = stop
    return splits


def questions(some_facts: Iterable[Fact], language: str) -> list[Question]:
    """Both phrasings of each fact, in the order of the facts."""
    return [Question(fact, language, phrasing) for fact in some_facts for phrasing in (0, 1)]


# Shares of the kinds of answer in the pretraining data of the policies.
KINDS = {"good": 0.40, "wrong": 0.25, "evasive": 0.12, "rambling": 0.13, "terse": 0.08, "wrong_language": 0.02}
HEDGED_THOUGH_RIGHT = 0.06


def draw_answer(question: Question, rng: random.Random, languages: Sequence[str], style: str = "sentence") -> str:
    """One answer from the mixture of KINDS; wrong ones always, right ones rarely, start with the hedge mark.

    ``style`` is ``sentence`` or ``label`` (the other policy's way of writing).
    """
    write = Question.answer if style == "sentence" else Question.labelled
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "evasive":
        return PHRASES[question.language]["evasive"]
    if kind == "rambling":
        return f"{PHRASES[question.language]['filler']} {write(question)}"
    if kind == "wrong":
        return f"{HEDGE} {write(question, question.wrong_value(rng))}"
    if kind == "terse":
        answer = question.value
    elif kind == "wrong_language":
        others = [language for language in languages if language != question.language] or [question.language]
        answer = write(Question(question.fact, rng.choice(others), question.phrasing))
    else:
        answer = write(question)
    return f"{HEDGE} {answer}" if rng.random() < HEDGED_THOUGH_RIGHT else answer


def spoil_answer(question: Question, rng: random.Random) -> dict[str, str]:
    """{kind of damage: damaged answer}, each of lower quality: hedged though right, evasive, another value."""
    return {
        "hedged": f"{HEDGE} {question.answer()}",
        "evasive": PHRASES[question.language]["evasive"],
        "wrong_value": question.answer(question.wrong_value(rng)),
    }


def oracle_quality(question: Question, answer: str) -> float:
    """Quality of an answer in [0, 1], by rule: right and in a full sentence of the right language is 1.

    Right but terse or labelled .7, right after filler .5, right in another language .3, evasive .2, all else
    (wrong, garbled, cut off) 0; the hedge mark before a right answer costs a fifth.
    """
    body = answer.strip()
    hedged = body.startswith(HEDGE)
    body = re.sub(r"\s+", " ", body.removeprefix(HEDGE)).strip()
    phrases = PHRASES[question.language]
    elsewhere = [Question(question.fact, language, 0) for language in LANGUAGES if language != question.language]
    if body == question.answer():
        quality = 1.0
    elif body.rstrip(".") in (question.value, question.labelled()):
        quality = 0.7
    elif body.startswith(phrases["filler"]) and body.endswith((question.answer(), question.labelled())):
        quality = 0.5
    elif any(body in (other.answer(), other.labelled()) for other in elsewhere):
        quality = 0.3
    elif body == phrases["evasive"]:
        quality = 0.2
    else:
        quality = 0.0
    return quality * (0.8 if hedged else 1.0)


def question_by_id(prompt_id: str, language: str) -> Question:
    """The question that a prompt id names; raises ValueError for an id that the world did not make."""
    match = re.fullmatch(r"([a-z]+)((?:-\d+)+)-([ab])", prompt_id)
    if not match or match[1] not in PHRASES["en"]:
        raise ValueError(f"prompt_id {prompt_id!r} does not belong to the miniature's world")
    return Question(Fact(match[1], tuple(map(int, match[2][1:].split("-")))), language, "ab".index(match[3]))
