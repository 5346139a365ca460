"""The run table: what a checked config asks for, model x pool x setting, and its look-ups."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from croco.config import resources
from croco.config.checks.settings import OF_MULTILINGUAL_POOLS
from croco.config.checks.stages import check_names, check_values
from croco.digests import derive_seed
from croco.evaluation.tasks import CAPABILITIES, parse_tasks
from croco.objectives import NONE, OBJECTIVES
from croco.pairs.hygiene import DEFAULT, PAPER, needs_languages
from croco.pairs.rules import RULES
from croco.runs import BASE, UNTUNED, Run

if TYPE_CHECKING:
    from croco.config.schema import Locator

# Keys of a setting that are facts of a run themselves, or that change nothing of what it is tuned on.
NOT_IN_VARIES = {
    *("name", "objective", "target", "rejected", "responses", "rounds", "pools"),
    *("seeds", "evaluate", "guards", "allow_degenerate"),
}


def _by_name(rows: Iterable[dict], key: str = "name") -> dict[str, dict]:
    return {row[key]: row for row in rows}


class Grid:
    """Everything that the rules need to know of a config.

    Args:
        config: checked against the schema, defaults filled in.
        known_languages: {code: row} of config/languages.tsv.
        locator: finds the lines of keys for error messages.
        on_this_machine: whether the files that the config names must be here.
    Attributes:
        hygiene: names of the filters of all settings without their own.
        policies, reward_models, translators, judges, recipes: {name: row of the config}.
        judge: the row of the judge that is a model, or None.
        prompts: {train or evaluate: row of the config}.
        languages, trained: codes of all languages, and of those that are tuned on.
        pools: {pool: codes}, the monolingual ones included.
        tuned: names of the policies that are tuned.
        runs: {Run.name: Run}, the run table.
        known_languages: {code: row of config/languages.tsv}.
        suites: {code: names of lm-eval's tasks} of the evaluated languages, empty without a suite.
        contrasts: (setting, pool, versus) of each declared comparison.
    Raises InputError with all faults of the config that the schema cannot express.
    """

    resource = staticmethod(resources.resource)

    def __init__(
        self,
        config: dict[str, Any],
        known_languages: dict[str, dict[str, str]],
        locator: "Locator",
        on_this_machine: bool = True,
    ) -> None:
        self.config, self.known_languages, self.locator = config, known_languages, locator
        self.results = os.path.normpath(config["results"]).replace("//", "/")  # normpath keeps two at the start
        self.hygiene: list[str] | str = config.get("hygiene", list(DEFAULT))
        self.policies = _by_name(config["policies"])
        self.reward_models = _by_name(config["reward_models"])
        self.translators = _by_name(config["translators"])
        self.judges = _by_name(config["judges"])
        self.judge = self.judges.get(config["evaluation"]["judge"])
        self.recipes = _by_name(config["recipes"])
        self.prompts = _by_name(config["prompts"], "use")
        self.languages = [row["code"] for row in config["languages"]]
        self.trained = [row["code"] for row in config["languages"] if row["train"]]
        self.pools = {code: (code,) for code in self.trained}
        self.pools |= {row["name"]: tuple(row["languages"]) for row in config["pools"]}
        self.tuned = [name for name, row in self.policies.items() if row["tune"]]
        check_names(self, known_languages)
        self.runs = {run.name: run for run in self._list_runs()}
        self.suites = self._list_suites(known_languages)
        self.contrasts = [(row["setting"], row["pool"], row["versus"]) for row in config["contrasts"]]
        check_values(self, on_this_machine)

    def path(self, text: str, **values: str) -> str:
        """A path of the config with {results}, {language} filled in."""
        for name, value in {"results": self.results, **values}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def list_models(self) -> list[dict]:
        """The rows of all models of the config, whether the run uses them or not."""
        of_roles = (self.policies, self.reward_models, self.translators, self.judges)
        return [row for rows in of_roles for row in rows.values()]

    @property
    def audit_policy(self) -> str:
        """Name of the policy whose answers the audit of the reward models takes."""
        return self.config["audit"].get("policy", self.tuned[0])

    def used_policies(self) -> list[dict]:
        """Rows of the policies that are tuned, give responses or are audited; others are not loaded."""
        names = {name for run in self.runs.values() for name in (run.model, run.responses)} | {self.audit_policy}
        return [row for name, row in self.policies.items() if name in names]

    def used_models(self) -> dict[str, list[dict]]:
        """{policy, reward, judge or translator: rows of the models that the run loads}; the audit loads all rewards."""
        translators = [self.prompts[use]["translator"] for use in ("train", "evaluate") if self.translated(use)]
        translators += [task["translator"] for task in self.config["evaluation"]["tasks"] if "source" in task]
        return {
            "policy": self.used_policies(),
            "reward": list(self.reward_models.values()),
            "judge": [self.judge] if self.judge else [],
            "translator": [self.translators[name] for name in dict.fromkeys(translators)],
        }

    def prompt_languages(self, use: str) -> list[str]:
        """The languages in which prompts are needed; ``use`` is train or evaluate, here and below."""
        return self.trained if use == "train" else self.languages

    def own_translation(self, use: str, language: str) -> str | None:
        """The user's own file of translated prompts, or None."""
        rows = self.prompts[use]["translations"]
        return next((row["path"] for row in rows if row["language"] == language), None)

    def has_prompts(self, use: str, language: str) -> bool:
        """Whether the source, or a file of the user's, gives a language's prompts."""
        row = self.prompts[use]
        if language == self.config["source_language"] or self.own_translation(use, language) is not None:
            return True
        parallel = "{language}" in row.get("path", row.get("subset", ""))
        return parallel and language in row.get("languages", self.languages)

    def prompt_file(self, use: str, language: str) -> str | None:
        """The local file with a language's prompts, or None where they come from a dataset or a translator."""
        path = self.own_translation(use, language)
        if path is None and self.has_prompts(use, language):
            path = self.prompts[use].get("path")
        return path and self.path(path, language=language)

    def translated(self, use: str) -> list[str]:
        """The languages whose prompts a translator writes."""
        return [code for code in self.prompt_languages(use) if not self.has_prompts(use, code)]

    def task_languages(self, task: dict) -> list[str]:
        """The evaluated languages that have a task of the config's own."""
        source = self.config["source_language"]
        return task.get("languages", [code for code in self.languages if "data" in task or code != source])

    def own_tasks(self, languages: Sequence[str]) -> list[tuple[dict, list[str]]]:
        """The config's own tasks that one of the languages has, each with those that have it."""
        found = [
            (task, [code for code in languages if code in self.task_languages(task)])
            for task in self.config["evaluation"]["tasks"]
        ]
        return [(task, codes) for task, codes in found if codes]

    def task_file(self, task: dict, language: str = "{language}") -> str:
        """The data of an own task; a translator writes it where the task has a source."""
        return self.path(task.get("data", f"{{results}}/tasks/{task['name']}/{{language}}.jsonl"), language=language)

    def limit(self, use: str) -> int | None:
        """How many prompts are taken, or None for all."""
        return min(filter(None, (self.prompts[use].get("limit"), self.config.get("limit"))), default=None)

    def blocks(self, use: str) -> range:
        """First prompts of the blocks: 0, 1000, ... below the limit; without a limit all prompts are one block."""
        return range(0, self.limit(use) or 1, self.config["block"])

    def block_limit(self, use: str, start: int) -> int | None:
        """How many prompts the block takes, or None for all."""
        limit = self.limit(use)
        return limit and min(self.config["block"], limit - start)

    def identifies(self, run: Run) -> bool:
        """Whether a run's hygiene needs to know the languages of the responses."""
        return needs_languages(self.hygiene_of(run))

    def hygiene_of(self, run: Run) -> list[str]:
        """The filters of a run's responses; none where its setting, or the config, says paper."""
        names = run.row.get("hygiene", self.hygiene)
        return [] if names == PAPER else names

    def training_resource(self, name: str, run: Run, attempt: int = 1, least: int = 0) -> int:
        """As resource, of the training of a run."""
        policy, reward_model = self.policies[run.model], self.reward_models[run.reward_model]
        return resources.training_resource(
            name, run.row["objective"], self.recipe_of(run), policy, reward_model, attempt, least
        )

    def count_processes(self, run: Run) -> int:
        """Processes of the training of a run: one per GPU."""
        return max(1, self.resource("gpu", [self.recipe_of(run), self.policies[run.model]]))

    def most_gpus(self) -> int:
        """GPUs of the most demanding job."""
        models = [row for rows in self.used_models().values() for row in rows]
        training = [[self.recipe_of(run), self.policies[run.model]] for run in self.runs.values() if not run.is_base]
        answering = [[self.config["evaluation"], self.policies[name]] for name in self.tuned]
        return resources.most_gpus([*([row] for row in models), *training, *answering])

    def base(self, model: str) -> Run:
        """The run of a policy before tuning."""
        return self.runs[f"{model}/{UNTUNED}/{BASE}"]

    @staticmethod
    def responses_for(row: dict, model: str) -> str:
        """The policy whose responses a setting uses to tune ``model``."""
        given = row.get("responses", model)
        return given[model] if isinstance(given, dict) else given

    def round_before(self, run: Run) -> Run | None:
        """The run whose checkpoint a round starts from and refers to, or None."""
        return self.runs[f"{run.model}/{run.pool}/{run.setting}/round{run.round - 1}"] if run.round > 1 else None

    def guards_of(self, run: Run) -> dict[str, float]:
        """When a run's training stops: options of croco.training.guards.Guards."""
        if "guards" in run.row:
            return {} if run.row["guards"] == "none" else run.row["guards"]
        # A null control's pairs are made to be at chance.
        by_rewards = "rejected" not in run.row or RULES[run.row["rejected"]].uses_rewards
        return OBJECTIVES[run.objective].guards if by_rewards else {}

    def rewards_for(self, run: Run) -> list[str]:
        """The reward models that score a run's answers: its own; of the base those of all that is tuned from it."""
        tuned = [other for other in self.runs.values() if other.model == run.model and not other.is_base]
        names = {other.reward_model for other in (tuned if run.is_base else []) or [run]}
        return [name for name in self.reward_models if name in names]

    def recipe_of(self, run: Run) -> dict:
        """The recipe that a run is tuned by: the one its setting names, else the one of its objective."""
        return self.recipes[run.row.get("recipe", run.row["objective"])]

    def _list_runs(self) -> Iterator[Run]:
        base = next(row for row in self.config["settings"] if row["name"] == BASE)
        settings = [row for row in self.config["settings"] if row["objective"] != NONE]
        for model in self.tuned:
            runs = [run for row in settings for run in self._runs_of(model, row)]
            wanted = {language for run in runs for language in run.evaluated}
            languages = tuple(language for language in self.languages if language in wanted)
            yield self._run(base, model, UNTUNED, (), languages)
            yield from runs

    def _runs_of(self, model: str, row: dict) -> Iterator[Run]:
        for pool in self.expand_pools(row):
            languages = self.pools[pool]
            evaluated = {"own": languages, "trained": self.trained, "all": self.languages}[row["evaluate"]]
            for replicate in row["seeds"]:
                for number in range(1, row["rounds"] + 1):
                    yield self._run(row, model, pool, languages, evaluated, replicate, number)

    def _run(
        self,
        row: dict,
        model: str,
        pool: str,
        languages: Sequence[str],
        evaluated: Sequence[str],
        replicate: int = 1,
        number: int = 1,
    ) -> Run:
        """The Run of a setting's row; from round 2 on, the responses are those of the run itself."""
        run = Run(
            model=model,
            pool=pool,
            arm=row["name"],
            replicate=replicate,
            round=number,
            seed=derive_seed(self.config["seed"], "replicate", replicate, bits=31),
            languages=tuple(languages),
            batches=self._batches(evaluated),
            reward_model=row.get("reward_model", next(iter(self.reward_models))),
            pool_size=row.get("pool_size", self.config["samples"]),
            responses=self.responses_for(row, model),
            row=row,
            varies=self._varies(row),
        )
        return replace(run, responses=run.name) if number > 1 else run

    def _varies(self, row: dict) -> dict[str, Any]:
        """Keys of a setting with another value than the config has for all settings."""
        usual = {
            "pool_size": self.config["samples"],
            "reward_model": next(iter(self.reward_models)),
            "hygiene": self.hygiene,
            "recipe": row["objective"],
            **OF_MULTILINGUAL_POOLS,
        }
        return {key: value for key, value in row.items() if key not in NOT_IN_VARIES and value != usual.get(key)}

    def expand_pools(self, row: dict) -> list[str]:
        """Names of a setting's pools, monolingual spelled out."""
        return [pool for name in row["pools"] for pool in (self.trained if name == "monolingual" else [name])]

    def _batches(self, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Evaluation jobs for a set of languages: whole pools in the config's order, then single languages."""
        batches: dict[str, tuple[str, ...]] = {}
        left = list(languages)
        for row in self.config["pools"]:
            if set(row["languages"]) <= set(left):
                batches[row["name"]] = tuple(row["languages"])
                left = [language for language in left if language not in row["languages"]]
        return {**batches, **{language: (language,) for language in left}}

    def wanted_capabilities(self) -> Sequence[str]:
        """The capabilities whose tasks of lm-eval are run."""
        suite = self.config["evaluation"]["suite"]
        return {"none": (), "all": CAPABILITIES}.get(str(suite), suite)

    def _list_suites(self, known_languages: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        """{language: names of lm-eval's tasks} of the evaluated languages."""
        wanted = self.wanted_capabilities()
        suites: dict[str, list[str]] = {}
        for code in dict.fromkeys(code for run in self.runs.values() for code in run.evaluated) if wanted else []:
            tasks = parse_tasks(known_languages[code]["tasks"] or "")
            suites[code] = [task for task, capability in tasks.items() if capability in wanted]
        return suites
