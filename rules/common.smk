"""What the rules share: the checked config, the run table, paths, and the digests that decide re-runs."""

import csv
import functools
import json
import re
import sys
from pathlib import Path

SCRIPTS = f"{workflow.basedir}/scripts"
sys.path.insert(0, SCRIPTS)

from croco.cli import put_interpreter_first
from croco.config.schema import Locator, check_config
from croco.digests import code_digest, file_digest, lock_digest, model_identity, tokenizer_identity
from croco.grid import Grid
from croco.errors import InputError
from croco.prompts.sources import check_sources
from croco.state import WEIGHT_FILES, list_checkpoint_files
from croco.evaluation.tasks import check_names_once, list_question_fields, parse_tasks

put_interpreter_first()


def read_languages():
    """{code: row} of config/languages.tsv."""
    with open(f"{workflow.basedir}/config/languages.tsv", encoding="utf-8") as file:
        return {row["code"]: row for row in csv.DictReader(file, delimiter="\t")}


def read_grid():
    """The run table of the merged config; ends with one message and exit code 1 where the config is wrong."""
    # Of --config, Snakemake reads True but not true.
    config.update({key: value == "true" for key, value in config.items() if value in ("true", "false")})
    locator = Locator(workflow.configfiles, workflow.config_settings.config or ())
    check_config(config, f"{workflow.basedir}/config/schema.yaml", locator)
    grid = Grid(config, KNOWN_LANGUAGES, locator)
    if workflow.is_main_process:
        check_sources(grid)
        check_names_once([name for names in grid.suites.values() for name in names], f"{grid.results}/state")
    return grid


KNOWN_LANGUAGES = read_languages()
try:
    GRID = read_grid()
except InputError as error:
    sys.exit(f"error: {error}")

STATE = f"{GRID.results}/state"
LOCK = lock_digest(f"{workflow.basedir}/requirements.lock")
VLLM_LOCK = lock_digest(f"{workflow.basedir}/requirements-vllm.lock")
# Where the prompts of each use lie under the output root.
SECTIONS = {"train": "prompts", "evaluate": "prompts/evaluate"}
REWARD_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
MODEL_FILES = [*REWARD_FILES, "generation_config.json"]
EVALUATION = GRID.config["evaluation"]
JUDGED = EVALUATION["judge"] != "none"
# The row of the judge that is a model; the oracle has none, and asks for next to nothing.
JUDGE = GRID.judge or {"engine": "transformers", "dtype": "float32", "resources": {"mem_mb": 2000, "runtime": 30}}
MINIATURE = GRID.config["miniature"]
AUDIT = GRID.config["audit"]
# The models whose chat templates are checked besides the policies', by role.
ROLES = {"reward": GRID.reward_models, "judge": GRID.judges, "translator": GRID.translators}
# Whose answers the audit takes: by default those of the first policy that is tuned.
AUDIT_POLICY = AUDIT.get("policy", next(name for name, row in GRID.policies.items() if row["tune"]))
# Whether tables and page are made of what exists so far, under partial/.
PARTIAL = GRID.config["partial"]
# Keys of a recipe that are options of scripts/train.py by the same name.
RECIPE_KEYS = (
    "learning_rate schedule warmup epochs weight_decay batch micro_batch max_length too_long beta loss label_smoothing "
    "weights lora_r lora_alpha lora_dropout lora_targets lora_coverage loss_on validation checkpoint save_every"
).split()
# Keys of a setting that are options of scripts/build_pairs.py by the same name.
PAIRING_KEYS = (
    "target rejected pool_size per_prompt balance standardise rejected_from prompt_language caliper"
).split()


@functools.cache
def hash_model(path):
    return model_identity(path, cache=f"{STATE}/digests")


def warn_of_too_few_gpus():
    """Says early what a job would be refused for, perhaps days later."""
    limit, needed = workflow.global_resources.get("gpu"), GRID.most_gpus()
    if workflow.is_main_process and limit is not None and limit.value < needed:
        print(
            f"warning: jobs of this config ask for {needed} GPUs: start with --resources gpu={needed}", file=sys.stderr
        )


warn_of_too_few_gpus()


def match_any(names):
    """A regex of exactly these names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def match_settings(*targets, weights=("lora", "full")):
    """A regex of the settings, as parts of paths, that have one of these targets and tune such weights."""
    return match_any(
        {
            run.part
            for run in GRID.runs.values()
            if not targets or (run.row.get("target") in targets and GRID.recipe_of(run)["weights"] in weights)
        }
    )


wildcard_constraints:
    model=match_any(GRID.policies),
    # Whose responses: a policy's, or a later round's.
    policy=match_any([*GRID.policies, *(run.name for run in GRID.runs.values() if run.round > 1)]),
    language=match_any([*GRID.languages, *GRID.config["miniature"]["languages"]]),
    pool=match_any(GRID.pools),
    setting=match_settings(),
    reward=match_any(GRID.reward_models),
    role=match_any(ROLES),
    title=match_any({name for rows in ROLES.values() for name in rows}),
    run=match_any(GRID.runs),
    start=r"\d+",


def place(path):
    """A path under the output root."""
    return f"{GRID.results}/{path}"


def place_made(path):
    """Where a table or page of all results goes."""
    return place(f"partial/{path}" if PARTIAL else path)


def need(files):
    """The inputs of a table or page: all of them, or with `partial` none.

    A file that exists may have a job that Snakemake would run again for its own reasons, on a GPU perhaps; so with
    `partial` files are no inputs but read as they are, and list_found tells when there are others.
    """
    return [] if PARTIAL else files


def list_readable(files):
    """The files that a table or page reads: all of its inputs, or with `partial` those that exist."""
    return [path for path in files if not PARTIAL or Path(path).exists()]


def list_found(files):
    """With `partial` those of the files that exist, with their sizes and times; else nothing."""
    found = [Path(path) for path in list_readable(files)] if PARTIAL else []
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found] or None


def find_run(wildcards):
    return GRID.runs[
        wildcards.run if "run" in wildcards.keys() else f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"
    ]


def list_model_files(row):
    """The files of a model that this workflow makes; models from elsewhere are followed by their content hash."""
    path = GRID.path(row["path"])
    made = path.startswith(place("miniature/"))
    rewards = [place(f"miniature/{row['name']}") for row in MINIATURE["reward_models"]]
    return [f"{path}/{name}" for name in (REWARD_FILES if path in rewards else MODEL_FILES) if made]


def identify_model(row):
    """Content hash of a local model, revision of one from the hub, None where the model's files are inputs."""
    path = GRID.path(row["path"])
    if list_model_files(row):
        return None
    return hash_model(path) if Path(path).is_dir() else row.get("revision", "main")


def list_options(row, *names):
    """Command-line options from a row of the config: ["--top-p", "1", ...]; a key that is absent or empty gives none."""
    options = []
    for name in names:
        value = row.get(name)
        if value is None or value is False or value == {}:
            continue
        if isinstance(value, dict):
            value = json.dumps(value, sort_keys=True)
        values = [] if value is True else value if isinstance(value, list) else [value]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options


def list_model_options(row, *names):
    """Options that say which model, and how it runs; ``names`` are further keys of its row."""
    known = ["revision", "dtype", "trust_remote_code", "engine", "engine_options", "batch", "template_options"]
    return ["--model", GRID.path(row["path"]), *list_options(row, *known, *names)]


def lock_engine(row):
    """Digest of the versions that a model's engine runs with."""
    return [LOCK, VLLM_LOCK] if row["engine"] == "vllm" else LOCK


def find_environment(*rows):
    """The conda environment for jobs of these models."""
    return "../envs/vllm.yaml" if any(row["engine"] == "vllm" for row in rows) else "../envs/croco.yaml"


def lease(granted, *rows):
    """The launcher that gives a job its own GPUs; refuses a job of which Snakemake has cut the request."""
    asked = GRID.resource("gpu", rows)
    return ["python", "scripts/with_gpus.py", "--asked", str(asked), "--granted", str(granted.get("gpu", 0)), "--"]


def list_blocks(pattern, use="train"):
    """A file for each block of prompts; the other wildcards stay."""
    return expand(place(pattern), start=GRID.blocks(use), allow_missing=True)


def digest_code(script):
    return code_digest(f"{SCRIPTS}/{script}.py")


def list_batches():
    """{name: languages} of evaluation jobs: one for each multilingual pool, and one for a language by itself."""
    names = {name for run in GRID.runs.values() for name in run.batches}
    pools = {row["name"]: row["languages"] for row in GRID.config["pools"] if row["name"] in names}
    return {"language": ["{language}"], **pools}


def match_batch(batch):
    """A regex of the runs that a batch evaluates; of single languages, only where one of theirs follows."""
    if batch != "language":
        return match_any(name for name, run in GRID.runs.items() if batch in run.batches)
    single = {name: [code for code in run.batches if code in GRID.languages] for name, run in GRID.runs.items()}
    return (
        "|".join(
            f"{re.escape(name)}(?=/[a-z]+/(?:(?:{match_any(GRID.reward_models)})/)?(?:{match_any(codes)})[.])"
            for name, codes in single.items()
            if codes
        )
        or "(?!)"
    )


def find_template(role, name):
    """The report on the chat template of a reward model, judge or translator; ends the run where it is of no use."""
    return place(f"templates/{role}/{name}.json")


def find_translator(use):
    return GRID.translators[GRID.prompts[use]["translator"]]


def list_task_source(task):
    """Options of scripts/translate.py: the rows of a structured task in the source language, and what to translate."""
    row = {**task, "dataset_revision": task.get("revision"), "source_language": GRID.config["source_language"]}
    names = ("fields", "id", "subset", "dataset_revision", "split", "source_language")
    return ["--prompts", GRID.path(task["source"]), *list_options(row, *names)]


def name_languages(wildcards):
    """What a translator is told of both languages; a change of another language's row re-runs nothing."""
    return [
        part
        for code in (GRID.config["source_language"], wildcards.language)
        for part in (KNOWN_LANGUAGES[code]["name"], KNOWN_LANGUAGES[code]["translation"])
    ]


def find_row(rows, name):
    return next(row for row in rows if row["name"] == name)


def find_policy(wildcards):
    """The config's row of the policy whose responses these are, of a round the policy that is tuned."""
    return GRID.policies[wildcards.policy.split("/")[0]]


def find_sampled_round(wildcards):
    """The run whose checkpoint writes the responses of a later round, or None where they are an untuned policy's."""
    return GRID.round_before(GRID.runs[wildcards.policy]) if wildcards.policy in GRID.runs else None


def list_adapter_option(option, run):
    return [option, place(f"{run.name}/checkpoint")] if run else []


def list_pool_files(wildcards, pattern):
    """A file for each language of the run's pool, of the policy whose responses it uses."""
    run = find_run(wildcards)
    model, reward = GRID.responses_of(run), GRID.reward_of(run)
    return [place(pattern.format(model=model, language=language, reward=reward)) for language in run.languages]


def list_scored_files(wildcards, pattern):
    """As list_pool_files, or nothing where references or prompts alone are the target."""
    unscored = find_run(wildcards).row["target"] in ("reference", "prompts")
    return [] if unscored else list_pool_files(wildcards, pattern)


def list_matched(wildcards):
    """The pairs of the setting that this one is matched to."""
    row = find_run(wildcards).row
    return [place(f"{wildcards.model}/{wildcards.pool}/{row['match']}/pairs.jsonl")] if "match" in row else []


def list_identified_files(wildcards):
    """The languages of the responses, where the run's hygiene asks for them."""
    wanted = GRID.identifies(find_run(wildcards))
    return list_scored_files(wildcards, "{model}/{language}/languages.jsonl") if wanted else []


def list_prompt_source(use, language, start):
    """Options of scripts/prompts.py: where a block of prompts comes from, and which part it takes."""
    row, source = GRID.prompts[use], GRID.config["source_language"]
    path = GRID.prompt_file(use, language)
    subset = GRID.path(row.get("subset", ""), language=language)
    options = ["--input", path]
    if not path:
        options = list_options({**row, "subset": subset or None}, "dataset", "subset", "revision", "split")
        # Of what a model is tuned on the first of equal ids will do; what is judged is paired by its id.
        options += ["--unique"] * (use == "evaluate")
    options += list_options(row, "columns", "id", "text", "reference")
    if language != source:
        return [*options, "--select", place(f"{SECTIONS[use]}/{source}/{start}.jsonl")]
    options += list_options({**row, "limit": GRID.block_limit(use, int(start))}, "limit", "max_tokens", "tokenizer")
    for column, values in row.get("where", {}).items():
        for value in values if isinstance(values, list) else [values]:
            options += ["--where", f"{column}={value if isinstance(value, str) else json.dumps(value)}"]
    if not row["language_check"]:
        options.append("--no-language-check")
    return options + ["--after", place(find_block_before(use, start))] * (int(start) > 0)


def find_block_before(use, start):
    return f"{SECTIONS[use]}/{GRID.config['source_language']}/{int(start) - GRID.config['block']}.jsonl"


def list_block_inputs(use, wildcards):
    """What a block of prompts is made from: its file, and of another block the end or the ids."""
    path, source = GRID.prompt_file(use, wildcards.language), GRID.config["source_language"]
    files = [path] if path else []
    if wildcards.language != source:
        return [*files, place(f"{SECTIONS[use]}/{source}/{wildcards.start}.jsonl")]
    return files + [place(find_block_before(use, wildcards.start))] * (int(wildcards.start) > 0)


def hash_dataset(use):
    """What a block of prompts is made from besides its input files: a local dataset, the tokenizer that counts tokens."""
    row = GRID.prompts[use]
    tokenizer = GRID.path(row.get("tokenizer", ""))
    made = tokenizer.startswith(place("miniature/"))
    return [hash_folder(row.get("dataset", "")), None if made or not tokenizer else tokenizer_identity(tokenizer)]


def hash_folder(path):
    """Content hash of a dataset in a local folder, which is no input by itself; None of one from the hub."""
    folder = Path(path)
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.name and folder.is_dir() else []
    return [[str(path), file_digest(path, f"{STATE}/digests")] for path in files] or None


def find_training_data(wildcards):
    name = {"pair": "pairs", "prompts": "prompts"}.get(find_run(wildcards).row["target"], "completions")
    return place(f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}/{name}.jsonl")


def list_previews(wildcards):
    """A page for each tuned policy and each setting that pairs responses of single languages by their raw rewards."""
    pages = [
        place(f"preview/{run.model}/{run.part}.html")
        for run in GRID.runs.values()
        if "rejected" in run.row and not run.row["standardise"]
        if run.pool in GRID.trained and run.replicate == run.round == 1
    ]
    if not pages:
        raise WorkflowError(
            "preview shows pairs of single languages, by raw rewards: add a setting with `pools: [monolingual]`, "
            "without match and standardise"
        )
    return sorted(set(pages))


def find_previewed(wildcards):
    """The setting's runs whose pool is one language."""
    names = [f"{wildcards.model}/{code}/{wildcards.setting}" for code in GRID.trained]
    return [GRID.runs[name] for name in names if name in GRID.runs]


def list_previewed(wildcards, name):
    """The files that a preview shows, one for each language."""
    runs = find_previewed(wildcards)
    model, reward = GRID.responses_of(runs[0]), GRID.reward_of(runs[0])
    patterns = {
        "prompts": "prompts/{language}.jsonl",
        "generations": f"{model}/{{language}}/generations.jsonl",
        "scores": f"{model}/{{language}}/scores/{reward}.jsonl",
        "pairs": f"{wildcards.model}/{{language}}/{wildcards.setting}/pairs.jsonl",
        "ledger": f"{wildcards.model}/{{language}}/{wildcards.setting}/ledger.json",
        "identified": f"{model}/{{language}}/languages.jsonl",
    }
    wanted = name != "identified" or GRID.identifies(runs[0])
    return [place(patterns[name].format(language=run.pool)) for run in runs if wanted]


def list_audited_starts():
    """The blocks of training prompts that the audited ones are in: the rest need be neither selected nor translated."""
    return [start for start in GRID.blocks("train") if start < AUDIT["prompts"]]


def list_audited_blocks(wildcards):
    return [place(f"prompts/{wildcards.language}/{start}.jsonl") for start in list_audited_starts()]


def list_comparisons():
    """Further comparisons for the audit: the user's, or, of prompts that the oracle knows, the world's own."""
    known, made = AUDIT.get("comparisons"), place("miniature/")
    if not known and EVALUATION["judge"] == "oracle":
        sources = [GRID.prompt_file("train", code) for code in GRID.trained]
        known = (
            f"{made}comparisons/{{language}}.jsonl" if all((path or "").startswith(made) for path in sources) else None
        )
    return [GRID.path(known, language=code) for code in GRID.trained] if known else []


def list_votes():
    """Ballots that were filled in and put in the folder preview.votes."""
    folder = GRID.config["preview"].get("votes")
    return sorted(map(str, Path(folder).glob("*.csv"))) if folder else []


def get_recipe(wildcards):
    return GRID.recipe_of(find_run(wildcards))


def count_processes(wildcards):
    """One process a GPU."""
    return max(1, GRID.resource("gpu", [get_recipe(wildcards), GRID.policies[wildcards.model]]))


def find_online_reward(wildcards):
    """The reward model that takes part in a training, or None."""
    run = find_run(wildcards)
    return GRID.reward_models[GRID.reward_of(run)] if run.row["objective"] == "online_dpo" else None


def list_online_options(wildcards):
    """Which reward model scores, and how the policy samples, in online DPO."""
    reward, policy = find_online_reward(wildcards), GRID.policies[wildcards.model]
    if not reward:
        return []
    names = ("revision", "dtype", "max_length", "trust_remote_code", "template_options")
    loading = {f"reward_{name}": reward.get(name) for name in names}
    sampling = list_options(policy, "temperature", "top_p", "max_tokens")
    return ["--reward-model", GRID.path(reward["path"]), *list_options(loading, *loading), *sampling]


def list_checkpoint(run):
    """The weights of a tuned run; none of the base, nor where there is no run."""
    if run is None or run.row["objective"] == "none":
        return []
    return [place(f"{run.name}/checkpoint/{name}") for name in WEIGHT_FILES[GRID.recipe_of(run)["weights"]]]


def list_evaluated_model(wildcards):
    """Options for the model of a run: the policy with its adapter, or a checkpoint of all weights."""
    run = find_run(wildcards)
    row, checkpoint = GRID.policies[run.model], place(f"{run.name}/checkpoint")
    if run.row["objective"] == "none":
        return list_model_options(row)
    if GRID.recipe_of(run)["weights"] == "full":
        return list_model_options({**row, "path": checkpoint, "revision": None})
    return [*list_model_options(row), "--adapter", checkpoint]


def find_release(wildcards):
    """The config's row of a release."""
    name = f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"
    return next((row for row in GRID.config["release"] if row["run"] == name), {"run": name, "weights": "merged"})


def list_releases(wildcards):
    if not GRID.config["release"]:
        raise WorkflowError("release: name what to bundle, e.g. --config 'release=[{run: mini/multi/dpo}]'")
    return [place(f"release/{row['run']}/manifest.json") for row in GRID.config["release"]]


def fill(languages, wildcards):
    """The languages of a job; that of a job of one stands in its wildcard."""
    return [language.format(**wildcards) for language in languages]


def list_task_files(wildcards, languages, key=None):
    """Data of the own structured tasks in a job's languages, or what their rows say under ``key``."""
    own = GRID.own_tasks(fill(languages, wildcards))
    return (
        [task[key] for task, _ in own] if key else [GRID.task_file(task, code) for task, codes in own for code in codes]
    )


def list_task_options(wildcards, languages):
    """--task NAME YAML DATA [LANGUAGE ...] for each own task, --suite LANGUAGE TASK ... for each language."""
    languages, options = fill(languages, wildcards), []
    for task, codes in GRID.own_tasks(languages):
        options += ["--task", task["name"], task["yaml"], GRID.task_file(task), *(codes if codes != languages else [])]
    for code in languages:
        options += ["--suite", code, *GRID.suites[code]] if GRID.suites.get(code) else []
    return options + list_options(EVALUATION if "--suite" in options else {}, "suite_limit")


def list_staged():
    """Options of scripts/stage.py: what this config takes from elsewhere, each once; not what the workflow makes."""
    models = [
        *GRID.policies.values(),
        *GRID.reward_models.values(),
        *GRID.translators.values(),
        *GRID.config.get("judges", []),
    ]
    options, seen = [], set()
    for row in models:
        if "path" in row and not list_model_files(row):
            options += ["--model", row["name"], GRID.path(row["path"]), row.get("revision", "-")]
            seen.add(row["path"])
    for path in dict.fromkeys(row["tokenizer"] for row in GRID.config["prompts"] if "tokenizer" in row):
        options += ["--tokenizer", GRID.path(path), "-"] if path not in seen else []
    tasks = [{"split": "test", **task, "dataset": task["source"]} for task in EVALUATION["tasks"] if "source" in task]
    for row in [*GRID.config["prompts"], *tasks]:
        if "dataset" not in row:
            continue
        subset, codes = row.get("subset", "-"), [GRID.config["source_language"]]
        if "{language}" in subset and "use" in row:
            codes = dict.fromkeys([*codes, *filter(functools.partial(GRID.has_prompts, row["use"]), GRID.languages)])
        for code in codes:
            what = [GRID.path(subset, language=code), row.get("revision", "-"), row.get("split", "train")]
            options += ["--dataset", row.get("name", row.get("use")), GRID.path(row["dataset"]), *what]
    suite = list(dict.fromkeys(name for names in GRID.suites.values() for name in names))
    return options + (["--suite", *suite] if suite else [])


def list_imports():
    """Options of scripts/import_results.py: the files, and the names that other harnesses may give our models."""
    options = [
        part
        for row in GRID.config["imports"]
        for part in ("--import", row["name"], GRID.path(row["path"]), row["format"])
    ]
    for name, row in GRID.policies.items():
        options += ["--policy", name, GRID.path(row["path"])]
        options += ["--revision", name, row["revision"]] if "revision" in row else []
    return options + [
        part for row in GRID.config["release"] if "name" in row for part in ("--release", row["run"], row["name"])
    ]


def list_beside_summary():
    """What is written beside the summary: the comparison with the paper, and imported results where there are any."""
    return [place("comparability.json"), *([place("imported.csv")] if GRID.config["imports"] else [])]


def list_judge_options(languages):
    """Options of scripts/judge.py: who judges, and of a model how it is asked."""
    options = ["--judge", EVALUATION["judge"]]
    if translated := [code for code in languages if code in GRID.translated("evaluate")]:
        options += ["--translated", *translated]
    if GRID.judge:
        options += list_model_options(GRID.judge, "max_tokens", "max_length")
        options += ["--template", GRID.judge["prompt"], *list_options(EVALUATION, "max_unparseable")]
        options += ["--names", *(KNOWN_LANGUAGES[code]["name"] for code in languages)]
    return options


def list_baseline_answers(wildcards, languages):
    base = GRID.base(find_run(wildcards).model).name
    return [place(f"{base}/answers/{language.format(**wildcards)}.jsonl") for language in languages]


def list_fidelity(run):
    """Files on a run's answers without a judge, and their rewards, of all languages; none where these are not asked for."""
    files = ["{language}", *(f"{reward}/{{language}}" for reward in GRID.rewards_for(run))]
    return [
        place(f"{run.name}/fidelity/{file.format(language=language)}.jsonl")
        for file in (files if EVALUATION["fidelity"] else [])
        for language in run.evaluated
    ]


def list_audits():
    """The audits of reward models that the findings read, where the config wants them there."""
    return [place(f"audit/{name}.json") for name in GRID.reward_models if AUDIT["in_findings"]]


def describe_run(run):
    """A run as scripts/summary.py takes it; a dash stands for what a run does not use."""
    scored = run.row.get("target", "reference") != "reference"
    pooled = run.row.get("target") in ("pair", "best")
    return [
        run.model,
        run.pool,
        run.part,
        str(run.replicate),
        GRID.reward_of(run) if scored else "-",
        str(run.row.get("pool_size", GRID.config["samples"])) if pooled else "-",
        ",".join(run.evaluated),
    ]


def describe_tuned(run):
    """A run as scripts/report.py takes it."""
    return [
        run.model,
        run.pool,
        run.part,
        str(run.replicate),
        GRID.responses_of(run),
        GRID.reward_of(run),
        ",".join(run.languages),
        ",".join(run.evaluated),
    ]


def list_checks(languages, starts):
    """The checks of blocks in these languages; and in the source's, on whose text the prompts are selected."""
    codes = dict.fromkeys([GRID.config["source_language"], *languages])
    return [place(f"prompts/{code}/{start}.contamination.json") for code in codes for start in starts]


def list_question(task):
    """Fields of a task's question."""
    try:
        return list_question_fields(task["yaml"])
    except InputError as error:
        raise WorkflowError(str(error)) from error
