"""The run table: what a checked config asks for, model x pool x setting, and the checks no schema can express."""

import math
import re
from dataclasses import replace
from pathlib import Path

from croco.digests import WEIGHTS, derive_seed
from croco.errors import InputError
from croco.evaluation.judge_prompt import read_template
from croco.evaluation.tasks import CAPABILITIES, parse_tasks
from croco.pairs.rules import DEGENERATE_UP_TO, FILTERS
from croco.runs import BASE, UNTUNED, Run, find_last
from croco.training.encode import SMOOTHED

RESERVED = (
    "untuned",
    "prompts",
    "preview",
    "audit",
    "release",
    "partial",
    "state",
    "logs",
    "benchmarks",
    "miniature",
    "scores",
    "language",
    "monolingual",
    "tasks",
    "templates",
)
MADE_BY_WORLD = ("prompts", "comparisons", "tasks", "tokenizer")
# Values of evaluation.judge that are no model.
NO_MODELS = ("oracle", "none")
TEMPLATE_FIELDS = ("text", "source_name", "target_name", "source_code", "target_code")
# Options of vLLM that follow from other keys of a model's row, or from the job.
OF_THE_ROW = frozenset(
    [
        "model",
        "revision",
        "tokenizer",
        "tokenizer_revision",
        "dtype",
        "trust_remote_code",
        "load_format",
        "runner",
        "enable_lora",
        "max_lora_rank",
        "seed",
    ]
)
# What stops a training unless its setting says otherwise; a null control's pairs are made to be at chance, and both
# responses of an online pair are the policy's own of that step.
GUARDS = {"sft": {}, "dpo": {"collapse": 3, "chance_after": 0.5}, "online_dpo": {}}
# Keys of a setting that only change how a pool of several languages is paired, with their defaults.
OF_MULTILINGUAL_POOLS = {
    "per_prompt": "one",
    "balance": False,
    "standardise": False,
    "rejected_from": "pool",
    "prompt_language": "chosen",
}
# Keys of a setting that are facts of a run themselves, or that change nothing of what it is tuned on.
NOT_IN_VARIES = {
    *("name", "objective", "target", "rejected", "responses", "rounds", "pools"),
    *("seeds", "evaluate", "guards", "allow_degenerate"),
}
# Keys of the default config that mean the miniature: whoever brings other policies must say them, too.
OF_THE_MINIATURE = (
    ("results",),
    *(("evaluation", key) for key in ("samples", "temperature", "max_tokens", "judge", "tasks")),
)


def weigh(model):
    """GB of a model's weights in its dtype; 0 of one without a size."""
    return model.get("size", 0) * (4 if model["dtype"] == "float32" else 2)


def responses_for(row, model):
    """The policy whose responses a setting uses to tune ``model``."""
    given = row.get("responses", model)
    return given[model] if isinstance(given, dict) else given


class Grid:
    """Everything that the rules need to know of a config.

    Args:
        config: checked against the schema, defaults filled in.
        known_languages: {code: row} of config/languages.tsv.
        locator: finds the lines of keys for error messages.
    Raises InputError for names that do not exist, collide or are reserved, and for pools too small for a rule.
    """

    def __init__(self, config, known_languages, locator):
        self.config, self.locator = config, locator
        self.results = config["results"].rstrip("/")
        self.hygiene = config.get("hygiene", list(FILTERS))
        self.policies = self._by_name("policies")
        self.reward_models = self._by_name("reward_models")
        self.translators = self._by_name("translators")
        self.judges = self._by_name("judges")
        # The row of the judge that is a model, or None.
        self.judge = self.judges.get(config["evaluation"]["judge"])
        self.recipes = self._by_name("recipes")
        self.prompts = self._by_name("prompts", "use")
        self.languages = self._languages(known_languages)
        self.trained = [row["code"] for row in config["languages"] if row["train"]]
        self._check_prompts()
        self.pools = self._pools()
        self._refuse_collisions()
        self.runs = {run.name: run for run in self._runs()}
        self._check_batches()
        self._check_tasks()
        self.suites = self._suites(known_languages)
        self._check_imports()
        self.contrasts = self._contrasts()
        self._check_audit()
        self._check_releases()
        self._check_miniature()
        self._check_translators()
        self._check_judges()
        self._check_model_paths()
        self._check_nothing_left_of_the_default()

    def fail(self, keys, problem, remedy):
        raise self.locator.error(keys, problem, remedy)

    def path(self, text, **values):
        """A path of the config with {results}, {language} filled in."""
        for name, value in {"results": self.results, **values}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def prompt_languages(self, use):
        """The languages in which prompts are needed."""
        return self.trained if use == "train" else self.languages

    def own_translation(self, use, language):
        """The user's own file of translated prompts, or None."""
        rows = self.prompts[use]["translations"]
        return next((row["path"] for row in rows if row["language"] == language), None)

    def has_prompts(self, use, language):
        """Whether the source, or a file of the user's, gives a language's prompts."""
        row = self.prompts[use]
        if language == self.config["source_language"] or self.own_translation(use, language) is not None:
            return True
        parallel = "{language}" in row.get("path", row.get("subset", ""))
        return parallel and language in row.get("languages", self.languages)

    def prompt_file(self, use, language):
        """The local file with a language's prompts, or None where they come from a dataset or a translator."""
        path = self.own_translation(use, language)
        if path is None and self.has_prompts(use, language):
            path = self.prompts[use].get("path")
        return path and self.path(path, language=language)

    def translated(self, use):
        """The languages whose prompts a translator writes."""
        return [code for code in self.prompt_languages(use) if not self.has_prompts(use, code)]

    def task_languages(self, task):
        """The evaluated languages that have a task of the config's own."""
        source = self.config["source_language"]
        return task.get("languages", [code for code in self.languages if "data" in task or code != source])

    def own_tasks(self, languages):
        """The config's own tasks that one of the languages has, each with those that have it."""
        found = [
            (task, [code for code in languages if code in self.task_languages(task)])
            for task in self.config["evaluation"]["tasks"]
        ]
        return [(task, codes) for task, codes in found if codes]

    def task_file(self, task, language="{language}"):
        """The data of an own task; a translator writes it where the task has a source."""
        return self.path(task.get("data", f"{{results}}/tasks/{task['name']}/{{language}}.jsonl"), language=language)

    def limit(self, use):
        """How many prompts are taken, or None for all."""
        return min(filter(None, (self.prompts[use].get("limit"), self.config.get("limit"))), default=None)

    def blocks(self, use):
        """First prompts of the blocks: 0, 1000, ... below the limit; without a limit all prompts are one block."""
        return range(0, self.limit(use) or 1, self.config["block"])

    def block_limit(self, use, start):
        """How many prompts the block takes, or None for all."""
        limit = self.limit(use)
        return limit and min(self.config["block"], limit - start)

    def identifies(self, run):
        """Whether a run's hygiene needs to know the languages of the responses."""
        return "wrong_language" in run.row.get("hygiene", self.hygiene)

    def resource(self, name, rows, attempt=1, processes=1, weights=None):
        """What a job asks of the machine: the first of the config rows that says it, else by the model's size.

        The model's size is in billions of parameters; a job without a size is one of the miniature. Memory and time
        grow with every attempt. mem_mb is main memory, through which the weights, in GB where they are not one
        model's in its dtype, pass in each process.
        """
        model = next((row for row in rows if "size" in row), {"size": 0, "dtype": "float32"})
        size, weights = model["size"], weigh(model) if weights is None else weights
        by_size = {
            "gpu": 1 if size else 0,
            "threads": 4 * processes if size else 1,
            "mem_mb": math.ceil(3000 + 1250 * weights * processes),
            "runtime": math.ceil(60 + 50 * size),
        }
        value = next((row["resources"][name] for row in rows if name in row.get("resources", {})), by_size[name])
        return value * attempt if name in ("mem_mb", "runtime") else value

    def training_resource(self, name, run, attempt=1):
        """As resource, of a training: one process a GPU; of all weights float32, with the reference beside them."""
        policy, recipe = self.policies[run.model], self.recipe_of(run)
        rows, objective = [recipe, policy], run.row["objective"]
        weights = weigh(policy)
        if recipe["weights"] == "full":
            weights = 4 * policy.get("size", 0) * (1 if objective == "sft" else 2)
        if objective == "online_dpo":
            weights += weigh(self.reward_models[run.reward_model])
        return self.resource(name, rows, attempt, max(1, self.resource("gpu", rows)), weights)

    def most_gpus(self):
        """GPUs of the most demanding job."""
        models = [*self.policies.values(), *self.reward_models.values(), *self.translators.values()]
        models += [self.judge] if self.judge else []
        training = [[self.recipe_of(run), self.policies[run.model]] for run in self.runs.values() if not run.is_base]
        answering = [[self.config["evaluation"], row] for row in self.policies.values() if row["tune"]]
        return max(self.resource("gpu", rows) for rows in [*([row] for row in models), *training, *answering])

    def base(self, model):
        return self.runs[f"{model}/{UNTUNED}/{BASE}"]

    def round_before(self, run):
        """The run whose checkpoint a round starts from and refers to, or None."""
        return self.runs[f"{run.model}/{run.pool}/{run.setting}/round{run.round - 1}"] if run.round > 1 else None

    def guards_of(self, run):
        """When a run's training stops: options of croco.training.guards.Guards."""
        known = run.row.get("guards", "none" if run.row.get("rejected") == "random" else GUARDS[run.row["objective"]])
        return {} if known == "none" else known

    def rewards_for(self, run):
        """The reward models that score a run's answers: its own; of the base those of all that is tuned from it."""
        tuned = [other for other in self.runs.values() if other.model == run.model and not other.is_base]
        names = {other.reward_model for other in (tuned if run.is_base else []) or [run]}
        return [name for name in self.reward_models if name in names]

    def recipe_of(self, run):
        return self.recipes[run.row.get("recipe", run.row["objective"])]

    def _by_name(self, key, name="name"):
        rows = {}
        for i, row in enumerate(self.config[key]):
            if row[name] in rows:
                self.fail((key, i, name), f"{row[name]} stands twice", f"give each row its own {name}")
            rows[row[name]] = row
        return rows

    def _languages(self, known):
        codes = []
        for i, row in enumerate(self.config["languages"]):
            keys = ("languages", i, "code")
            if row["code"] not in known:
                self.fail(
                    keys,
                    f"unknown language {row['code']}",
                    "correct the code, or add the language to config/languages.tsv",
                )
            if row["code"] in codes:
                self.fail(keys, f"the language {row['code']} stands twice", "keep one row a language")
            codes.append(row["code"])
        if self.config["source_language"] not in codes:
            self.fail(("source_language",), "not one of the languages", f"choose one of {', '.join(codes)}")
        return codes

    def _pools(self):
        pools = {code: (code,) for code in self.trained}
        for i, row in enumerate(self.config["pools"]):
            keys = ("pools", i, "name")
            if row["name"] in self.languages or row["name"] in pools:
                self.fail(keys, f"the name {row['name']} is taken by a language or pool", "choose another name")
            for j, code in enumerate(row["languages"]):
                if code not in self.trained:
                    self.fail(
                        ("pools", i, "languages", j),
                        f"{code} is not a trained language",
                        "add it to languages, or take it out",
                    )
            pools[row["name"]] = tuple(row["languages"])
        return pools

    def _refuse_collisions(self):
        for key in ("policies", "pools", "settings"):
            for i, row in enumerate(self.config[key]):
                if row["name"] in RESERVED:
                    self.fail(
                        (key, i, "name"), f"the name {row['name']} is reserved", f"reserved are {', '.join(RESERVED)}"
                    )
        for i, row in enumerate(self.config["policies"]):
            if row["name"] in self.pools:
                self.fail(("policies", i, "name"), f"the name {row['name']} is taken by a pool", "choose another name")

    def _check_prompts(self):
        for i, row in enumerate(self.config["prompts"]):
            keys, use = ("prompts", i), row["use"]
            if ("path" in row) == ("dataset" in row):
                self.fail(keys, "a source is either a path or a dataset", "give one of the two")
            dataset = row.get("dataset", "")
            if dataset.startswith((".", "/")) and not Path(dataset).is_dir():
                self.fail((*keys, "dataset"), f"there is no folder {dataset}", "correct the path, or give a hub id")
            if "dataset" in row and "columns" in row:
                self.fail((*keys, "columns"), "a dataset names its columns itself", "leave it out")
            for key in ("subset", "revision", "split"):
                if key in row and "path" in row:
                    self.fail((*keys, key), "has no effect on a local file", "leave it out, or write dataset for path")
            parallel = "{language}" in row.get("path", row.get("subset", ""))
            if "languages" in row and not parallel:
                self.fail(
                    (*keys, "languages"),
                    "has no effect where path or subset is one for all",
                    "write {language} in the path or subset, or leave it out",
                )
            if parallel and self.config["source_language"] not in row.get("languages", self.languages):
                self.fail(
                    (*keys, "languages"), "the source language is missing", "add it: the others are chosen by its ids"
                )
            if ("max_tokens" in row) != ("tokenizer" in row):
                self.fail(
                    (*keys, "max_tokens" if "max_tokens" in row else "tokenizer"),
                    "max_tokens and tokenizer go together",
                    "add the other; the tokenizer is named here so that a new policy does not change the selection",
                )
            if "max_tokens" in row and not self.limit(use):
                self.fail((*keys, "max_tokens"), "needs a limit", "say how many prompts to take")
            if row.get("translator", "") not in ("", *self.translators):
                self.fail(
                    (*keys, "translator"), f"there is no {row['translator']}", f"one of {', '.join(self.translators)}"
                )
            for j, own in enumerate(row["translations"]):
                place, code = (*keys, "translations", j, "language"), own["language"]
                if code not in self.prompt_languages(use) or code == self.config["source_language"]:
                    self.fail(place, f"no prompts are needed in {code}", "correct it, or take it out")
                if code in [other["language"] for other in row["translations"][:j]]:
                    self.fail(place, f"{code} stands twice", "give one file a language")
            if self.translated(use) and "translator" not in row:
                self.fail(
                    (*keys, "translator"),
                    f"nothing gives the prompts in {', '.join(self.translated(use))}",
                    "name a translator, list your own files under translations, or write {language} in the path or subset",
                )
            if "translator" in row and not self.translated(use):
                self.fail((*keys, "translator"), "every language has its own file", "leave it out")

    def _check_batches(self):
        for run in self.runs.values():
            if run.is_base:
                continue
            recipe = self.recipe_of(run)
            self._check_recipe(self.config["recipes"].index(recipe), recipe, run)
            processes = max(1, self.resource("gpu", [recipe, self.policies[run.model]]))
            if recipe["batch"] % (recipe["micro_batch"] * processes):
                self.fail(
                    ("recipes", self.config["recipes"].index(recipe), "micro_batch"),
                    f"{recipe['micro_batch']} x {processes} processes does not divide the batch of {recipe['batch']}",
                    "choose a divisor, or another resources.gpu",
                )

    def _check_recipe(self, i, recipe, run):
        """Fails for an option of a recipe that its setting's objective, loss or weights would leave without effect."""
        setting, answer = run.row, self.policies[run.model]["max_tokens"]
        objective, loss = setting["objective"], recipe.get("loss", "sigmoid")
        longest = self.reward_models[run.reward_model]["max_length"]
        full, lora = recipe["weights"] == "full", [key for key in recipe if key.startswith("lora_")]
        losses = [key for key in ("beta", "loss", "label_smoothing") if key in recipe]
        checks = [
            (full and lora, lora[:1], "has no effect on full weights", "leave it out"),
            (
                objective == "sft" and losses,
                losses[:1],
                f"has no effect on {setting['name']}, which is sft",
                "give it its own recipe",
            ),
            (
                objective != "sft" and "loss_on" in recipe,
                ["loss_on"],
                f"has no effect on {setting['name']}, which is {objective}",
                "give sft its own recipe",
            ),
            (
                "lora_coverage" in recipe and "lora_targets" not in recipe,
                ["lora_coverage"],
                "without a pattern all projections are adapted",
                "name a part by lora_targets, or leave it out",
            ),
            (
                ("label_smoothing" in recipe) != (loss in SMOOTHED),
                ["label_smoothing"],
                f"goes with the losses {' and '.join(SMOOTHED)}, and the loss is {loss}",
                "leave it out, or take another loss",
            ),
            (
                objective == "online_dpo" and loss not in ("sigmoid", "ipo"),
                ["loss"],
                f"online DPO knows no loss {loss}",
                "sigmoid or ipo",
            ),
            (
                recipe["checkpoint"] == "best" and not recipe.get("validation"),
                ["checkpoint"],
                "the best checkpoint is told by the validation loss, and nothing is held out",
                "hold out a share of the prompts: validation, e.g. 0.05",
            ),
            (
                objective == "online_dpo" and recipe.get("validation"),
                ["validation"],
                "online DPO has no validation loss",
                "give it its own recipe",
            ),
            (
                objective == "online_dpo" and recipe["max_length"] <= answer,
                ["max_length"],
                f"an answer of {run.model} may have {answer} tokens, which leaves no room for a prompt",
                "raise it, or lower the policy's max_tokens",
            ),
            (
                objective == "online_dpo" and recipe["max_length"] > longest,
                ["max_length"],
                f"the reward model gives no reward beyond its max_length of {longest}",
                "lower it, or raise the reward model's",
            ),
            (full and setting.get("rounds", 1) > 1, ["weights"], "rounds go with LoRA", "take LoRA, or one round"),
        ]
        for wrong, key, problem, remedy in checks:
            if wrong:
                self.fail(("recipes", i, *key), problem, remedy)

    def _runs(self):
        settings = self._by_name("settings")
        if "base" not in settings or settings["base"]["objective"] != "none":
            self.fail(("settings",), "no base", "add the row {name: base, objective: none}: all is compared with it")
        for i, row in enumerate(self.config["settings"]):
            self._check_setting(i, row)
        tuned = [name for name, row in self.policies.items() if row["tune"]]
        if not tuned:
            self.fail(("policies",), "no policy is tuned", "leave out `tune: false` in one of them")
        for model in tuned:
            runs = [run for row in settings.values() if row["objective"] != "none" for run in self._runs_of(model, row)]
            if not runs:
                self.fail(("settings",), "nothing is tuned", "add a setting with the objective sft or dpo")
            wanted = {language for run in runs for language in run.evaluated}
            languages = tuple(language for language in self.languages if language in wanted)
            source = self.config["source_language"]
            if idle := [language for language in self.languages if language not in (*wanted, source)]:
                self.fail(
                    ("languages", self.languages.index(idle[0])),
                    f"no setting is tuned or evaluated in {idle[0]}",
                    "write evaluate: all in a setting, name it in a pool, or take it out",
                )
            yield self._run(settings[BASE], model, UNTUNED, (), languages)
            yield from runs

    def _runs_of(self, model, row):
        for pool in self.expand_pools(row):
            languages = self.pools[pool]
            evaluated = {"own": languages, "trained": self.trained, "all": self.languages}[row["evaluate"]]
            for replicate in row["seeds"]:
                for number in range(1, row["rounds"] + 1):
                    yield self._run(row, model, pool, languages, evaluated, replicate, number)

    def _run(self, row, model, pool, languages, evaluated, replicate=1, number=1):
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
            responses=responses_for(row, model),
            row=row,
            varies=self._varies(row),
        )
        return replace(run, responses=run.name) if number > 1 else run

    def _varies(self, row):
        """Keys of a setting with another value than the config has for all settings."""
        usual = {
            "pool_size": self.config["samples"],
            "reward_model": next(iter(self.reward_models)),
            "hygiene": self.hygiene,
            "recipe": row["objective"],
            **OF_MULTILINGUAL_POOLS,
        }
        return {key: value for key, value in row.items() if key not in NOT_IN_VARIES and value != usual.get(key)}

    def expand_pools(self, row):
        """Names of a setting's pools, monolingual spelled out."""
        return [pool for name in row["pools"] for pool in (self.trained if name == "monolingual" else [name])]

    def _batches(self, languages):
        """Evaluation jobs for a set of languages: whole pools in the config's order, then single languages."""
        batches, left = {}, list(languages)
        for row in self.config["pools"]:
            if set(row["languages"]) <= set(left):
                batches[row["name"]] = tuple(row["languages"])
                left = [language for language in left if language not in row["languages"]]
        return {**batches, **{language: (language,) for language in left}}

    def _check_setting(self, i, row):
        keys = ("settings", i)
        if row["objective"] == "none":
            plain = {"name": "base", "objective": "none", "evaluate": "own", "seeds": [1], "allow_degenerate": False}
            if row != {**plain, "rounds": 1, **OF_MULTILINGUAL_POOLS}:
                self.fail(
                    keys,
                    "a setting with objective none is the base and has no other keys",
                    "name it base, and leave them out",
                )
            return
        needs = {"sft": ("reference", "best"), "dpo": ("pair",), "online_dpo": ("prompts",)}[row["objective"]]
        if row.get("target") not in needs:
            self.fail((*keys, "target"), f"objective {row['objective']} needs a target", f"one of {', '.join(needs)}")
        if (row["target"] == "pair") != (("rejected" in row) + ("match" in row) == 1):
            self.fail(
                (*keys, "rejected"),
                "a pair, and nothing else, needs a rule for the rejected response, or another setting to match",
                "see `rejected` and `match` in config/schema.yaml",
            )
        if "responses" in row:
            self._check_responses((*keys, "responses"), row)
        for key, known in (
            ("reward_model", self.reward_models),
            ("recipe", self.recipes),
        ):
            if key in row and row[key] not in known:
                self.fail((*keys, key), f"there is no {row[key]}", f"one of {', '.join(known)}")
        if row.get("recipe", row["objective"]) not in self.recipes:
            self.fail(("recipes",), f"no recipe {row['objective']}", "add it, or name another under `recipe`")
        if "pools" not in row:
            self.fail((*keys, "pools"), "missing key", "add it: names of pools, or monolingual")
        if 1 not in row["seeds"]:
            self.fail((*keys, "seeds"), "there is no 1", "add it: the seed 1 bears the setting's name")
        self._refuse_idle(keys, row)
        if not self.expand_pools(row):
            self.fail((*keys, "pools"), "no language is trained", "leave out `train: false` in one of the languages")
        for j, pool in enumerate(row["pools"]):
            if pool != "monolingual" and pool not in self.pools:
                self.fail(
                    (*keys, "pools", j), f"there is no pool {pool}", f"monolingual, or one of {', '.join(self.pools)}"
                )
        self._check_match(keys, row)
        self._check_pool_size(keys, row)

    def _refuse_idle(self, keys, row):
        """Fails for a key that would have no effect in a setting."""
        idle = {}
        if row["target"] in ("reference", "prompts"):
            idle |= dict.fromkeys(("pool_size", "hygiene", "responses"), f"where the target is {row['target']}")
        if row["target"] == "reference":
            idle["reward_model"] = "where the references are the target"
        if row["target"] != "pair":
            idle |= dict.fromkeys(("rounds", "caliper", "rejected_from", "prompt_language"), "without pairs")
        if row["target"] != "reference":
            idle["per_prompt"] = "without references as the target"
        if row["target"] not in ("pair", "best"):
            idle |= dict.fromkeys(("balance", "standardise"), f"where the target is {row['target']}")
        if row.get("rejected") == "random":
            idle |= dict.fromkeys(("balance", "standardise"), "where rewards do not count")
        if "match" in row:
            idle |= dict.fromkeys(("balance", "standardise"), "where another setting's pairs are matched")
        elif "caliper" in row:
            idle["caliper"] = "without match"
        if row["objective"] == "sft":
            idle["guards"] = "on sft, which stops only where the loss is not finite"
        if row["rounds"] > 1:
            idle["responses"] = "beside rounds, which generate with the tuned policy"
        if not any(len(self.pools.get(pool, ())) > 1 for pool in row["pools"]):
            idle |= dict.fromkeys(OF_MULTILINGUAL_POOLS, "in pools of one language")
        defaults = {"rounds": 1, **OF_MULTILINGUAL_POOLS}
        for key, where in idle.items():
            if key in row and row[key] != defaults.get(key):
                self.fail((*keys, key), f"has no effect {where}", "leave it out")

    def _check_responses(self, keys, row):
        for model in (name for name, policy in self.policies.items() if policy["tune"]):
            if isinstance(row["responses"], dict) and model not in row["responses"]:
                self.fail(keys, f"nothing is said for {model}", "name a policy for each one that is tuned")
            other = responses_for(row, model)
            if other not in self.policies:
                self.fail(keys, f"there is no {other}", f"one of {', '.join(self.policies)}")
            if other == model:
                self.fail(
                    keys,
                    f"{model} would be tuned on its own responses",
                    "leave it out; or name another policy for each model: {MODEL: POLICY, ...}",
                )

    def _check_match(self, keys, row):
        if "match" in row:
            other = next((some for some in self.config["settings"] if some["name"] == row["match"]), {})
            if other.get("rejected", "random") == "random" or other["rounds"] > 1 or 1 not in other["seeds"]:
                self.fail(
                    (*keys, "match"),
                    f"{row['match']} is no setting with pairs of one round by a rule on rewards, with the seed 1",
                    "name a setting with the target pair whose `rejected` is a rule",
                )
            first = next(iter(self.reward_models))
            if other.get("reward_model", first) != row.get("reward_model", first):
                self.fail((*keys, "match"), f"{row['match']} has another reward model", "rewards of two are no match")
            pools = self.expand_pools(other)
            if missing := [pool for pool in self.expand_pools(row) if pool not in pools]:
                self.fail((*keys, "pools"), f"{row['match']} has no pool {missing[0]}", "give both the same pools")
        code = row["prompt_language"]
        for pool in self.expand_pools(row):
            if code not in ("chosen", "rejected", *self.pools[pool]):
                self.fail(
                    (*keys, "prompt_language"),
                    f"{code} is no language of the pool {pool}",
                    "chosen, rejected, or the code of a language in all of the setting's pools",
                )

    def _check_pool_size(self, keys, row):
        samples = self.config["samples"]
        if row.get("pool_size", 0) > samples:
            self.fail((*keys, "pool_size"), f"only {samples} samples are generated", "raise samples or lower pool_size")
        if row["target"] != "pair":
            return
        languages = min(len(self.pools[pool]) for pool in self.expand_pools(row))
        size = row.get("pool_size", samples) * (1 if row["rejected_from"] == "chosen_language" else languages)
        place = (*keys, "pool_size") if "pool_size" in row else ("samples",)
        if size < 2:
            self.fail(place, f"a pair needs two responses, the pool has {size}", "raise samples or pool_size")
        if row.get("rejected") == "mean-2sd" and size <= DEGENERATE_UP_TO and not row["allow_degenerate"]:
            self.fail(
                place,
                f"with {size} responses mean - 2 sd never lies above the minimum, so the setting {row['name']} would be dpo_min",
                f"use more than {DEGENERATE_UP_TO} (64 in the paper), or write allow_degenerate: true in the setting",
            )

    def _check_tasks(self):
        for i, task in enumerate(self.config["evaluation"]["tasks"]):
            keys, translated = ("evaluation", "tasks", i), "source" in task
            if ("data" in task) == translated:
                self.fail(keys, "a task has either data or a source to translate", "give one of the two")
            for key in ("translator", "fields"):
                if translated and key not in task:
                    self.fail((*keys, key), "missing key", "say which fields of the source which translator translates")
            for key in ("translator", "fields", "subset", "revision", "split", "id"):
                if not translated and key in task:
                    self.fail((*keys, key), "has no effect without a source", "leave it out")
            if task["name"] in [other["name"] for other in self.config["evaluation"]["tasks"][:i]]:
                self.fail((*keys, "name"), f"{task['name']} stands twice", "give each task its own name")
            if translated and task["translator"] not in self.translators:
                self.fail(
                    (*keys, "translator"), f"there is no {task['translator']}", f"one of {', '.join(self.translators)}"
                )
            for j, code in enumerate(task.get("languages", [])):
                if code not in self.languages or (translated and code == self.config["source_language"]):
                    self.fail(
                        (*keys, "languages", j), f"the task is not needed in {code}", "correct it, or take it out"
                    )

    def _suites(self, known):
        """{language: names of lm-eval's tasks} of the evaluated languages."""
        evaluation, suites = self.config["evaluation"], {}
        wanted = {"none": (), "all": CAPABILITIES}.get(str(evaluation["suite"]), evaluation["suite"])
        if not wanted:
            if "suite_limit" in evaluation:
                self.fail(("evaluation", "suite_limit"), "has no effect without a suite", "leave it out, or say suite")
            return suites
        own = [task["name"] for task in evaluation["tasks"]]
        for code in dict.fromkeys(code for run in self.runs.values() for code in run.evaluated):
            try:
                tasks = parse_tasks(known[code]["tasks"] or "")
            except ValueError as error:
                raise InputError(
                    f"{code}: {error}",
                    f"write capability: task, task; ... with {', '.join(CAPABILITIES)}",
                    "config/languages.tsv",
                    field="tasks",
                ) from error
            suites[code] = [task for task, capability in tasks.items() if capability in wanted]
            if twins := sorted(set(own) & set(suites[code])):
                self.fail(
                    ("evaluation", "tasks", own.index(twins[0]), "name"),
                    f"lm-eval has a task of the name {twins[0]}",
                    "choose another name",
                )
            if not suites[code] and not self.own_tasks([code]):
                self.fail(
                    ("evaluation", "suite"),
                    f"there is no structured task in {code}",
                    f"list lm-eval's tasks (scripts/check_language.py {code}) in column tasks of config/languages.tsv, "
                    "ask for further capabilities, or add tasks of your own under evaluation.tasks",
                )
        return suites

    def _check_imports(self):
        for i, row in enumerate(self.config["imports"]):
            if not Path(self.path(row["path"])).is_file():
                self.fail(("imports", i, "path"), f"there is no file {self.path(row['path'])}", "correct the path")
            if row["name"] in [other["name"] for other in self.config["imports"][:i]]:
                self.fail(("imports", i, "name"), f"{row['name']} stands twice", "give each its own name")

    def _contrasts(self):
        contrasts = []
        for i, row in enumerate(self.config["contrasts"]):
            if self.config["evaluation"]["judge"] == "none":
                self.fail(
                    ("contrasts", i),
                    "win rates are compared, which need a judge",
                    "name a judge, or write contrasts: []",
                )
            if row in self.config["contrasts"][:i] or row["setting"] == row["versus"]:
                self.fail(("contrasts", i), "says nothing new", "compare two different settings, and once")
            for model in dict.fromkeys(run.model for run in self.runs.values()):
                names = [row["setting"]] + ([row["versus"]] if row["versus"] != "base" else [])
                runs = [find_last(self.runs.values(), model, row["pool"], name) for name in names]
                if None in runs:
                    name = names[runs.index(None)]
                    self.fail(
                        ("contrasts", i),
                        f"there is no setting {name} with the pool {row['pool']}",
                        "name a setting that has it",
                    )
                if len({frozenset(run.evaluated) for run in runs}) > 1:
                    self.fail(
                        ("contrasts", i),
                        "the two settings are evaluated in different languages",
                        "give both the same `evaluate`",
                    )
            contrasts.append((row["setting"], row["pool"], row["versus"]))
        return contrasts

    def _check_audit(self):
        row = self.config["audit"]
        if row.get("policy", "") not in ("", *self.policies):
            self.fail(("audit", "policy"), f"there is no {row['policy']}", f"one of {', '.join(self.policies)}")
        comparisons = row.get("comparisons", "")
        for code in self.trained if comparisons else []:
            path = self.path(comparisons, language=code)
            if not Path(path).is_relative_to(self.results) and not Path(path).is_file():
                self.fail(("audit", "comparisons"), f"there is no file {path}", "correct the path, or leave it out")

    def _check_releases(self):
        for i, row in enumerate(self.config["release"]):
            if row["run"] in [other["run"] for other in self.config["release"][:i]]:
                self.fail(("release", i, "run"), f"{row['run']} stands twice", "release a run once")
            run = self.runs.get(row["run"])
            if run is None or run.is_base:
                tuned = [name for name, other in self.runs.items() if not other.is_base]
                self.fail(("release", i, "run"), f"there is no tuned model {row['run']}", f"one of {', '.join(tuned)}")

    def _check_miniature(self):
        """What the miniature makes must cover what is asked of it."""
        made = f"{self.results}/miniature/"
        taken = [*MADE_BY_WORLD]
        for key in ("policies", "reward_models"):
            for i, row in enumerate(self.config["miniature"][key]):
                if row["name"] in taken:
                    self.fail(("miniature", key, i, "name"), f"the name {row['name']} is taken", "choose another name")
                taken.append(row["name"])
        for key, kind in (("policies", "policies"), ("reward_models", "reward_models"), ("judges", "policies")):
            known = [f"{made}{row['name']}" for row in self.config["miniature"][kind]]
            for i, row in enumerate(self.config[key]):
                path = self.path(row["path"])
                if path.startswith(made) and path not in known:
                    self.fail((key, i, "path"), f"the miniature makes no {path}", f"one of {', '.join(known)}")
        for i, row in enumerate(self.config["prompts"]):
            of_miniature = self.path(row.get("path", "")).startswith(made)
            if row["use"] == "evaluate" and self.config["evaluation"]["judge"] == "oracle" and not of_miniature:
                self.fail(
                    ("prompts", i, "path" if "path" in row else "dataset"),
                    "the oracle judges the miniature's prompts only",
                    "name one of your judges, or write judge: none",
                )
            for j, language in enumerate(self.languages):
                file = self.prompt_file(row["use"], language) or ""
                made_here = of_miniature and file.startswith(made)
                if made_here and language not in self.config["miniature"]["languages"]:
                    self.fail(
                        ("languages", j),
                        f"the miniature was not made in {language}",
                        "add it to miniature.languages (its models are trained anew)",
                    )

    def _check_engine(self, keys, row):
        options = row["engine_options"]
        for name in sorted(OF_THE_ROW & set(options)):
            self.fail((*keys, name), "is set by the workflow", "leave it out; see the other keys of the row")
        split = options.get("tensor_parallel_size", 0) * options.get("pipeline_parallel_size", 1)
        for rows in [[row], *([[self.config["evaluation"], row]] if row.get("tune") else [])]:
            if row["engine"] == "vllm" and split not in (0, self.resource("gpu", rows)):
                self.fail(
                    (*keys, "tensor_parallel_size"),
                    f"the model is split over {split} GPUs, but a job has {self.resource('gpu', rows)}",
                    "leave it out (vLLM then splits over all GPUs of the job), or correct resources.gpu",
                )

    def _check_translators(self):
        for i, row in enumerate(self.config["translators"]):
            keys, template = ("translators", i, "template"), row.get("template")
            if (row["format"] == "template") != (template is not None):
                self.fail(keys, "format template, and no other, has a template", "add it, or take it out")
            unknown = [name for name in re.findall(r"\{(\w+)\}", template or "") if name not in TEMPLATE_FIELDS]
            if unknown:
                self.fail(keys, f"unknown field {{{unknown[0]}}}", f"known are {', '.join(TEMPLATE_FIELDS)}")

    def _check_judges(self):
        for i, row in enumerate(self.config["judges"]):
            if row["name"] in NO_MODELS:
                self.fail(("judges", i, "name"), f"the name {row['name']} is reserved", "choose another name")
            try:
                read_template(row["prompt"])
            except InputError as error:
                self.fail(("judges", i, "prompt"), str(error).split("\n")[0], "see config/judge_prompt.txt")
        name = self.config["evaluation"]["judge"]
        if name not in (*NO_MODELS, *self.judges):
            self.fail(
                ("evaluation", "judge"),
                f"there is no judge {name}",
                f"one of {', '.join([*NO_MODELS, *self.judges])}, or add it to judges",
            )

    def _check_model_paths(self):
        """A path that cannot be a hub id must be a folder with weights."""
        for key in ("policies", "reward_models", "translators", "judges"):
            for i, row in enumerate(self.config[key]):
                path = self.path(row["path"])
                self._check_engine((key, i, "engine_options"), row)
                if path.startswith(f"{self.results}/miniature/"):
                    continue
                if Path(path).is_dir():
                    if not list(Path(path).glob(WEIGHTS)):
                        self.fail((key, i, "path"), f"no {WEIGHTS} in {path}", "name a folder with a model's weights")
                elif not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path):
                    self.fail((key, i, "path"), f"{path} is no folder, and no hub id", "correct the path")

    def _check_nothing_left_of_the_default(self):
        if self.locator.is_default(("policies",)):
            return
        for keys in OF_THE_MINIATURE:
            if self.locator.is_default(keys):
                self.fail(keys, "is still the miniature's", "say it in your config, beside your policies")
