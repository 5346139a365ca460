"""Translates the data of structured tasks for languages that have no data of their own.

In:  the task's source, the translator.
Out: {results}/tasks/{task}/{language}.jsonl
"""


include: "helpers/tasks.smk"


for TASK in EVALUATION["tasks"]:
    if "source" not in TASK:
        continue

    rule:
        name:
            f"translate_task_{TASK['name']}"
        input:
            source=[GRID.path(TASK["source"])] if TASK["source"].endswith(".jsonl") else [],
            template=path_template("translator", TASK["translator"]),
            models=wait_for_checks(f"tasks/{TASK['name']}/{{language}}.jsonl"),
            model=paths_model(GRID.translators[TASK["translator"]]),
        output:
            data=place(f"tasks/{TASK['name']}/{{language}}.jsonl"),
            manifest=place(f"tasks/{TASK['name']}/{{language}}.manifest.json"),
        log:
            place(f"logs/tasks/{TASK['name']}/{{language}}.log"),
        benchmark:
            place(f"benchmarks/tasks/{TASK['name']}/{{language}}.tsv")
        wildcard_constraints:
            language=match_any(GRID.task_languages(TASK)),
        conda:
            environment_of(GRID.translators[TASK["translator"]])
        threads: model_threads([GRID.translators[TASK["translator"]]])
        resources:
            **model_job([GRID.translators[TASK["translator"]]], f"translate_task_{TASK['name']}"),
        params:
            scripts=path_scripts,
            table=path_languages,
            gpus=lambda wc, resources, row=GRID.translators[TASK["translator"]]: options_gpus(resources, row),
            source=options_task_source(TASK),
            # A function, because a template contains braces.
            model=lambda wc, row=GRID.translators[TASK["translator"]]: options_model(
                row, "format", "template", "max_tokens", "longest", "attempts"
            ),
            identity=lambda wc, row=GRID.translators[TASK["translator"]]: identify_model(row),
            names=name_languages,
            content=hash_folder(TASK["source"]),
            seed=GRID.config["seed"],
            state=STATE,
            code=digest_code("translate"),
            lock=lock_engine(GRID.translators[TASK["translator"]]),
        message:
            "translate: {output.data} ({resources.gpu} GPU)"
        shell:
            r"""
            python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
                python {params.scripts:q}/translate.py \
                {params.source:q} \
                --language {wildcards.language:q} \
                --languages {params.table:q} \
                {params.model:q} \
                --seed {params.seed:q} \
                --state {params.state:q} \
                --output {output.data:q} \
                2>&1 | tee {log:q}
            """
