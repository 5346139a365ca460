"""Tuning with LoRA.

In:  the setting's pairs.jsonl or completions.jsonl, the policy.
Out: {model}/{pool}/{setting}/checkpoint/: adapter, tokenizer, chat template, metrics.jsonl, manifest.json
"""

ADAPTER_FILES = [
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "metrics.jsonl",
    "manifest.json",
]
# Keys of a recipe that are options of scripts/train.py by the same name.
RECIPE_KEYS = (
    "learning_rate schedule warmup epochs weight_decay batch micro_batch max_length beta "
    "lora_r lora_alpha lora_dropout save_every"
).split()


def find_training_data(wildcards):
    name = "pairs" if find_run(wildcards).row["target"] == "pair" else "completions"
    return place(f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}/{name}.jsonl")


def get_recipe(wildcards):
    return GRID.recipe_of(find_run(wildcards))


def list_launcher(wildcards):
    """How training starts: plain python for one process, accelerate for one process a GPU."""
    gpus = get_resource(get_recipe(wildcards), "gpu")
    return ["python"] if gpus <= 1 else ["accelerate", "launch", "--multi_gpu", "--num_processes", str(gpus)]


rule train:
    """SFT or DPO; resumable state lies under state/, only the final checkpoint is declared."""
    input:
        data=find_training_data,
        model=lambda wc: list_model_files(GRID.policies[wc.model]),
    output:
        expand(place("{model}/{pool}/{setting}/checkpoint/{file}"), file=ADAPTER_FILES, allow_missing=True),
    log:
        place("logs/train/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/train/{model}.{pool}.{setting}.tsv")
    params:
        launcher=list_launcher,
        model=lambda wc: list_model_options(GRID.policies[wc.model]),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        objective=lambda wc: find_run(wc).row["objective"],
        options=lambda wc: list_options({**get_recipe(wc), "seed": find_run(wc).seed}, *RECIPE_KEYS, "seed"),
        folder=place("{model}/{pool}/{setting}/checkpoint"),
        code=digest_code("train"),
        lock=LOCK,
    threads: lambda wc: get_resource(get_recipe(wc), "threads")
    resources:
        gpu=lambda wc: get_resource(get_recipe(wc), "gpu"),
        mem_mb=lambda wc: get_resource(get_recipe(wc), "mem_mb"),
        runtime=lambda wc: get_resource(get_recipe(wc), "runtime"),
    message:
        "train: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        {params.launcher:q} {SCRIPTS:q}/train.py --objective {params.objective:q} --data {input.data:q} \
            {params.model:q} {params.options:q} --state {STATE:q} --output {params.folder:q} 2>&1 | tee {log:q}
        """
