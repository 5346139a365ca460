"""Makes the miniature's models and text from scratch.

Out: {results}/miniature/prompts/{split}/{language}.jsonl, comparisons/{language}.jsonl, tasks/{task}/{language}.jsonl,
tokenizer/, and one model folder per policy and reward model.
"""


include: "helpers/miniature.smk"


rule miniature_world:
    """Parallel prompts, lm-eval data and the tokenizer."""
    output:
        expand(
            place("miniature/prompts/{split}/{language}.jsonl"),
            split=["train", "dev", "heldout"],
            language=MINIATURE["languages"],
        ),
        expand(
            place("miniature/tasks/{task}/{language}.jsonl"),
            task=["heldout", "untouched"],
            language=MINIATURE["languages"],
        ),
        expand(place("miniature/comparisons/{language}.jsonl"), language=MINIATURE["languages"]),
        place("miniature/world.manifest.json"),
        tokenizer=place("miniature/tokenizer/tokenizer.json"),
    log:
        place("logs/miniature/world.log"),
    benchmark:
        place("benchmarks/miniature/world.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=10,
    params:
        scripts=path_scripts,
        languages=MINIATURE["languages"],
        seed=GRID.config["seed"],
        folder=lambda wc: place("miniature"),
        code=digest_code("miniature"),
        lock=LOCK,
    message:
        "miniature: the world in {params.languages}"
    shell:
        r"""
        python {params.scripts:q}/miniature.py world \
            --languages {params.languages:q} \
            --seed {params.seed:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """


rule miniature_policy:
    """A small Llama, pretrained on noisy chats and clean parallel sentences."""
    input:
        tokenizer=rules.miniature_world.output.tokenizer,
    output:
        expand(place("miniature/{policy}/{file}"), file=[*MODEL_FILES, "manifest.json"], allow_missing=True),
    log:
        place("logs/miniature/{policy}.log"),
    benchmark:
        place("benchmarks/miniature/{policy}.tsv")
    wildcard_constraints:
        policy=match_any(row["name"] for row in MINIATURE["policies"]),
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        scripts=path_scripts,
        languages=MINIATURE["languages"],
        options=lambda wc: options_of(find_row(MINIATURE["policies"], wc.policy), "style", "chats", "sentences"),
        seed=GRID.config["seed"],
        world=lambda wc: place("miniature"),
        folder=lambda wc: place(f"miniature/{wc.policy}"),
        code=digest_code("miniature"),
        lock=LOCK,
    message:
        "miniature: pretraining {wildcards.policy}"
    shell:
        r"""
        python {params.scripts:q}/miniature.py policy \
            --world {params.world:q} \
            --languages {params.languages:q} \
            {params.options:q} \
            --seed {params.seed:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """


rule miniature_reward:
    """A reward model tuned on English preferences, from the body of the first policy."""
    input:
        expand(place("miniature/{policy}/{file}"), policy=MINIATURE["policies"][0]["name"], file=MODEL_FILES),
    output:
        expand(place("miniature/{reward}/{file}"), file=[*REWARD_FILES, "manifest.json"], allow_missing=True),
    log:
        place("logs/miniature/{reward}.log"),
    benchmark:
        place("benchmarks/miniature/{reward}.tsv")
    wildcard_constraints:
        reward=match_any(row["name"] for row in MINIATURE["reward_models"]),
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        scripts=path_scripts,
        languages=MINIATURE["languages"],
        pairs=lambda wc: find_row(MINIATURE["reward_models"], wc.reward)["pairs"],
        seed=GRID.config["seed"],
        policy=lambda wc: place(f"miniature/{MINIATURE['policies'][0]['name']}"),
        folder=lambda wc: place(f"miniature/{wc.reward}"),
        code=digest_code("miniature"),
        lock=LOCK,
    message:
        "miniature: tuning {wildcards.reward} on English preferences"
    shell:
        r"""
        python {params.scripts:q}/miniature.py reward \
            --policy {params.policy:q} \
            --languages {params.languages:q} \
            --pairs {params.pairs:q} \
            --seed {params.seed:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """
