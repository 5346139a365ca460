"""A page to inspect before training: prompts, responses and pairs, and blind ballots for native speakers.

In:  prompts, generations, scores, pairs and ledgers of the monolingual pools of a setting; filled ballots.
Out: {results}/preview/{model}/{setting}.html, {setting}/agreement.csv, and beside it the ballots
     {setting}/{language}.csv. These are not declared outputs, because Snakemake would delete filled ballots there.
"""


include: "helpers/preview.smk"


rule write_preview:
    """Writes one page, and one ballot per language, for a setting whose pools are single languages."""
    input:
        source=place(f"prompts/{GRID.config['source_language']}.jsonl"),
        prompts=lambda wc: paths_previewed(wc, "prompts"),
        generations=lambda wc: paths_previewed(wc, "generations"),
        scores=lambda wc: paths_previewed(wc, "scores"),
        pairs=lambda wc: paths_previewed(wc, "pairs"),
        ledger=lambda wc: paths_previewed(wc, "ledger"),
        identified=lambda wc: paths_previewed(wc, "identified"),
        exclude=lambda wc: paths_contamination([run.pool for run in previewed_runs(wc)], GRID.blocks("train")),
        votes=paths_votes(),
        template=[f"{SCRIPTS}/templates/{name}" for name in ("preview.html.j2", "layout.html.j2", "report.css")],
    output:
        page=place("preview/{model}/{setting}.html"),
        agreement=place("preview/{model}/{setting}/agreement.csv"),
        manifest=place("preview/{model}/{setting}.manifest.json"),
    log:
        place("logs/preview/{model}.{setting}.log"),
    benchmark:
        place("benchmarks/preview/{model}.{setting}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=60,
    params:
        scripts=path_scripts,
        languages=lambda wc: [run.pool for run in previewed_runs(wc)],
        files=lambda wc, input: [
            part
            for name in ("prompts", "generations", "scores", "pairs", "ledger", "identified", "exclude", "votes")
            if input.get(name)
            for part in (f"--{name}", *input.get(name))
        ],
        options=lambda wc: options_of(
            {**previewed_runs(wc)[0].row, "count": GRID.config["preview"]["prompts"], "seed": GRID.config["seed"]},
            "pool_size",
            "count",
            "seed",
        ),
        folder=lambda wc: place(f"preview/{wc.model}/{wc.setting}"),
        title=lambda wc: f"{wc.model}, {wc.setting}",
        code=digest_code("preview"),
        lock=LOCK,
    message:
        "preview: {output.page}"
    shell:
        r"""
        python {params.scripts:q}/preview.py \
            --source {input.source:q} \
            --language {params.languages:q} \
            {params.files:q} \
            {params.options:q} \
            --title {params.title:q} \
            --template {input.template[0]:q} \
            --output {output.page:q} \
            --ballots {params.folder:q} \
            2>&1 | tee {log:q}
        """
