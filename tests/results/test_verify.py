"""Target bundle and scripts/verify.py: the evidence of a real run checked, then tampered with."""

import gzip
import io
import json
import re
import shutil
import tarfile

import pytest
import yaml
from conftest import ROOT, planned, rows, script, snakemake, write_rows, write_runs

from croco.results.coverage import PLOTS
from croco.results.repeat import OPTIONS

RUN, OTHER = "mini/en/dpo", "mini/multi/dpo_random"


@pytest.fixture(scope="module")
def bundle(finished_run, tmp_path_factory):
    """Path of the small run's bundle, made by the workflow in a copy, with a lock of models and a file of the user."""
    folder = tmp_path_factory.mktemp("bundle") / "project"
    shutil.copytree(finished_run, folder, symlinks=True)
    (folder / "responses.yaml").write_text("bundle: {responses: true}\n", encoding="utf-8")
    arguments = ("bundle", "--configfile", "two_languages.yaml", "responses.yaml")
    snakemake(folder, "stage", "--configfile", "two_languages.yaml", "--cores", 1)
    (folder / "results/small/notes.csv").write_text("mine\n", encoding="utf-8")
    said = snakemake(folder, *arguments, "--cores", 2)
    assert "not packed, because no manifest says how they were made: notes.csv\n" in said.stdout + said.stderr
    assert not planned(folder, *arguments)
    return folder / "results/small/bundle.tar.gz"


@pytest.fixture
def unpacked(bundle, tmp_path):
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "bundle"


@pytest.fixture
def evidence(unpacked):
    """An unpacked bundle without its page, which takes longest to make again."""
    for path in (*unpacked.glob("report.*"), *(unpacked / name for name in PLOTS)):
        path.unlink()
    repack(unpacked)
    return unpacked


def repack(folder):
    """A forger who knows of the index brings it up to date."""
    index = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    from croco.digests import file_digest

    index["files"] = {
        name: {**entry, "sha256": file_digest(folder / name)}
        for name, entry in index["files"].items()
        if (folder / name).exists()
    }
    (folder / "bundle.json").write_text(json.dumps(index), encoding="utf-8")


def mismatches(path, *options):
    done = script("verify", path, *options, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    found = [line.removeprefix("MISMATCH").strip() for line in done.stdout.splitlines() if line.startswith("MISMATCH")]
    assert done.returncode == bool(found), done.stdout + done.stderr
    return found


def test_an_honest_bundle_matches(bundle, tmp_path):
    done = script("verify", bundle, "--report", tmp_path / "page/again.html")
    assert (tmp_path / "page/again.html").read_bytes() == bundle.with_name("report.html").read_bytes()
    said = {line.split(": ")[0].split(None, 1)[1]: int(line.split(": ")[-1]) for line in done.stdout.splitlines() if line.startswith("matches")}  # fmt: skip
    assert {"files", "inputs", "ledgers", "pairs", "build_pairs", "judge", "summary"} <= set(said)
    assert "not checked" in done.stdout and "training" in done.stdout
    with tarfile.open(bundle) as archive:
        names = archive.getnames()
    assert not [name for name in names if "safetensors" in name or "tokenizer" in name]
    assert "bundle/stage.lock.json" in names and "bundle/notes.csv" not in names
    packed = json.loads(bundle.with_name("bundle.manifest.json").read_text(encoding="utf-8"))["root_digest"]
    assert f"root digest  {packed}" in done.stdout


def test_the_root_digest_of_the_authors(unpacked):
    index = json.loads((unpacked / "bundle.json").read_text(encoding="utf-8"))
    from croco.results.bundles import root_digest

    digest = root_digest(index)
    assert "bundle.json: has another root digest than --digest" in mismatches(unpacked, "--digest", "0" * 64)
    assert not mismatches(unpacked, "--digest", digest)
    text = (unpacked / "README.md").read_text(encoding="utf-8")
    assert "verify.py bundle.tar.gz" in text and RUN in text
    config = json.loads((unpacked / "config.json").read_text(encoding="utf-8"))
    assert config["results"] == "results/small"


@pytest.fixture(scope="module")
def reduced(bundle, tmp_path_factory):
    """Folder of an unpacked bundle whose config has lost a setting since the run, whose results are still there."""
    folder = tmp_path_factory.mktemp("reduced")
    project = folder / "project"
    shutil.copytree(bundle.parents[2], project, symlinks=True)
    config = yaml.safe_load((project / "two_languages.yaml").read_text(encoding="utf-8"))
    for part, key in (("settings", "name"), ("contrasts", "setting")):
        config[part] = [row for row in config[part] if row[key] != "dpo_random"]
    (project / "two_languages.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    snakemake(project, "bundle", "--configfile", "two_languages.yaml", "responses.yaml", "--cores", 2)
    with tarfile.open(project / "results/small/bundle.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "bundle"


def test_a_bundle_matches_after_a_setting_was_removed(reduced):
    left = [path.relative_to(reduced / OTHER).as_posix() for path in (reduced / OTHER).rglob("*") if path.is_file()]
    assert left and all(name.endswith("manifest.json") for name in left)
    done = script("verify", reduced)
    assert (
        f"manifests of runs that runs.jsonl does not have, whose results are not packed: {len(left)}\n" in done.stdout
    )


def test_results_of_a_removed_setting_are_checked_if_they_are_packed(reduced, unpacked, tmp_path):
    folder = shutil.copytree(reduced, tmp_path / "forged")
    path = folder / OTHER / "arena/en.jsonl"
    write_rows(path, [{**row, "score": 1.0} for row in rows(unpacked / OTHER / "arena/en.jsonl")])
    index = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    index["files"][f"{OTHER}/arena/en.jsonl"] = {}
    (folder / "bundle.json").write_text(json.dumps(index), encoding="utf-8")
    repack(folder)
    assert [line for line in mismatches(folder) if line.startswith(f"{OTHER}/arena/en.")]


@pytest.mark.parametrize("missing", ["generations.jsonl", "scores/rm.jsonl"])
def test_missing_responses_are_named(tmp_path, missing):
    write_runs(tmp_path / "runs.jsonl", ("m", "untuned", "base", 1, "-", "-", "en"))
    for name in {"untuned/base/ledger.json", "en/generations.jsonl", "en/scores/rm.jsonl"} - {f"en/{missing}"}:
        write_rows(tmp_path / "m" / name, [{}])
    options = ["--root", tmp_path, "--runs", tmp_path / "runs.jsonl", "--responses", "m", "en", "rm", "--config", "{}", "--languages", ROOT / "config/languages.tsv"]  # fmt: skip
    done = script("bundle", *options, "--output", tmp_path / "bundle.tar.gz", check=False)
    assert done.returncode == 1 and f"{tmp_path}/m/en/{missing}" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "bundle.tar.gz").exists()


def test_the_same_run_gives_the_same_bytes(bundle):
    manifest = json.loads(bundle.with_name("bundle.manifest.json").read_text(encoding="utf-8"))
    options, project = manifest["options"], bundle.parents[2]
    parts = [part for row in options["responses"] for part in ("--responses", *row)]
    script(
        "bundle",
        "--root",
        options["root"],
        "--runs",
        options["runs"],
        *parts,
        "--config",
        json.dumps(options["config"]),
        "--languages",
        options["languages"],
        "--output",
        options["output"] + ".again",
        cwd=project,
    )
    again = bundle.with_name(bundle.name + ".again")
    assert again.read_bytes() == bundle.read_bytes()
    again.unlink()


def test_a_changed_number_is_found(evidence):
    table = evidence / "summary.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",0.5,", ",0.6,"), encoding="utf-8")
    found = mismatches(evidence)
    assert any("not the file that was packed" in line for line in found)
    repack(evidence)
    assert [line for line in mismatches(evidence) if line.startswith("summary.csv: comes out differently")]


def test_changed_verdicts_are_found_by_their_answers(evidence):
    path = evidence / RUN / "arena/en.jsonl"
    table = rows(path)
    for line in table:
        line["score"] = 1.0
    write_rows(path, table)
    repack(evidence)
    assert [line for line in mismatches(evidence) if line.startswith(f"{RUN}/arena/en.jsonl: comes out differently")]


def test_every_changed_result_is_found_or_listed(unpacked):
    changes = {
        "report.html": ("</html>", "<!-- --></html>"),
        "win_rates.svg": ("</svg>", "<g/></svg>"),
        "findings.json": ("not tested", "supported"),
        "contamination.json": ('"removed": 0', '"removed": 1'),
        "tables/win_rate.md": ("|", "||"),
        "audit/english.md": ("0.", "9."),
        f"{RUN}/ledger.json": ('"no_pair"', '"none": 0, "no_pair"'),
        f"{RUN}/eval/en.json": ('"n": ', '"n": 1'),
    }
    for name, (old, new) in changes.items():
        text = (unpacked / name).read_text(encoding="utf-8")
        assert old in text, name
        (unpacked / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    (unpacked / "notes.json").write_text("{}", encoding="utf-8")
    index = json.loads((unpacked / "bundle.json").read_text(encoding="utf-8"))
    index["files"]["notes.json"] = {}
    (unpacked / "bundle.json").write_text(json.dumps(index), encoding="utf-8")
    repack(unpacked)
    found = mismatches(unpacked)
    for name in [*changes, "notes.json"]:
        assert [line for line in found if line.startswith(f"{name}: ")], name


def test_results_without_their_manifests_are_found(unpacked):
    table = unpacked / "summary.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",0.5,", ",0.999,"), encoding="utf-8")
    for name in ("summary", "findings", "report"):
        (unpacked / f"{name}.manifest.json").unlink()
    (unpacked / RUN / "arena/en.jsonl").unlink()
    (unpacked / RUN / "checkpoint/metrics.jsonl").unlink()
    repack(unpacked)
    found = mismatches(unpacked)
    assert "summary.csv: has no manifest (summary.manifest.json)" in found
    assert "report.manifest.json: is not in the bundle" in found
    assert f"{RUN}/checkpoint/metrics.jsonl: is not in the bundle" in found


def test_a_result_of_other_evidence_is_found(evidence):
    path = evidence / RUN / "arena/en.manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["options"]["answers"] = [f"results/small/{OTHER}/answers/en.jsonl"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    repack(evidence)
    assert f"{RUN}/arena/en.jsonl: was made with another answers than {RUN}/answers/" in mismatches(evidence)


def test_what_the_config_declares_and_the_tables_leave_out_is_found(evidence):
    """An unwelcome measure, its comparison and an easier pair rule: the manifests agree with each other."""
    changes = {
        "summary.manifest.json": {"judged": False, "contrast": [["dpo", "en", "base"]]},
        f"{RUN}/pairs.manifest.json": {"rejected": "min"},
        f"{RUN}/arena/en.manifest.json": {"judge": "kind"},
    }
    for name, options in changes.items():
        manifest = json.loads((evidence / name).read_text(encoding="utf-8"))
        manifest["options"] |= options
        (evidence / name).write_text(json.dumps(manifest), encoding="utf-8")
    (evidence / OTHER / "arena/en.jsonl").unlink()
    repack(evidence)
    found = mismatches(evidence)
    for name, options in changes.items():
        for option in options:
            assert f"{name}: was made with another {option} than config.json says" in found
    assert f"{OTHER}/arena/en.jsonl: is not in the bundle" in found


def test_a_wrong_run_table_is_found(evidence):
    (evidence / "runs.jsonl").write_text("{}\n", encoding="utf-8")
    repack(evidence)
    found = "\n".join(mismatches(evidence))
    assert "runs.jsonl: not a row of the run table" in found
    write_rows(evidence / "runs.jsonl", [])
    repack(evidence)
    assert "runs.jsonl: has other runs than the bundle's index" in "\n".join(mismatches(evidence))


def test_a_run_that_the_config_does_not_have_is_found(evidence):
    path = evidence / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["settings"] = config["settings"][:-1]
    config["contrasts"] = config["contrasts"][:-1]
    path.write_text(json.dumps(config), encoding="utf-8")
    repack(evidence)
    assert "runs.jsonl: is not the run table of config.json" in mismatches(evidence)
    path.write_text("[]", encoding="utf-8")
    repack(evidence)
    assert [line for line in mismatches(evidence) if line.startswith("config.json: is no config")]


def test_damaged_files_are_mismatches_and_the_other_checks_go_on(unpacked):
    damaged = {
        f"{RUN}/ledger.json": '{"prompts": 1}',
        f"{OTHER}/ledger.json": '{"prom',
        f"{RUN}/eval/en.json": "[1]",
        "audit/english.json": "[]",
        "languages.tsv": "code\tname\n" + "x" * 200_000 + "\tx\n",
        "summary.manifest.json": '{"stage": "summary", "options": {}, "inputs": [1]}',
    }
    for name, text in damaged.items():
        assert (unpacked / name).is_file(), name
        (unpacked / name).write_text(text, encoding="utf-8")
    repack(unpacked)
    found = mismatches(unpacked)
    told = {"audit/english.json": "audit/english.md", "languages.tsv": "config.json"}
    for name in damaged:
        assert [line for line in found if line.startswith(f"{told.get(name, name)}: ")], name


def test_a_bundle_without_its_languages_says_so(unpacked):
    (unpacked / "languages.tsv").unlink()
    repack(unpacked)
    assert mismatches(unpacked) == ["languages.tsv: is not in the bundle"]


def test_an_empty_bundle_is_none(unpacked):
    index = json.loads((unpacked / "bundle.json").read_text(encoding="utf-8"))
    (unpacked / "bundle.json").write_text(json.dumps(index | {"files": {}}), encoding="utf-8")
    done = script("verify", unpacked, check=False)
    assert done.returncode == 1 and "the bundle is empty" in done.stderr


def test_a_dropped_pair_is_found(evidence):
    path = evidence / RUN / "pairs.jsonl"
    write_rows(path, rows(path)[1:])
    repack(evidence)
    found = "\n".join(mismatches(evidence))
    assert f"{RUN}/ledger.json: says" in found and f"{RUN}/pairs.jsonl: comes out differently" in found
    assert f"{RUN}/checkpoint/manifest.json: was made from another data" in found


def test_swapped_pairs_are_found(evidence):
    path = evidence / RUN / "pairs.jsonl"
    table = rows(path)
    table[0]["chosen_reward"], table[0]["rejected_reward"] = table[0]["rejected_reward"], table[0]["chosen_reward"]
    write_rows(path, table)
    repack(evidence)
    assert f"{RUN}/pairs.jsonl:1: rejected is not below chosen" in mismatches(evidence)


def test_a_file_more_or_less_is_found(evidence):
    (evidence / RUN / "ledger.json").unlink()
    (evidence / "extra.json").write_text("{}", encoding="utf-8")
    found = mismatches(evidence)
    assert f"{RUN}/ledger.json: is missing" in found and "extra.json: was not packed with the others" in found


@pytest.mark.parametrize("stage", OPTIONS)
def test_every_option_of_a_repeated_stage_is_listed(stage):
    usage = script(stage, "--help").stdout.split("options:")[-1]
    flags = set(re.findall(r"^  --([a-z][a-z-]*)", usage, re.MULTILINE))
    assert flags == {option.replace("_", "-") for option in OPTIONS[stage]}


FORGED = [
    ("build_pairs", {"output": "../../outside"}, "leads out"),
    ("build_pairs", {"output": "results/../../outside"}, "leads out"),
    ("build_pairs", {"ledger": "{outside}"}, "leads out"),
    ("build_pairs", {"output": "--help"}, "leads out"),
    ("build_pairs", {"prompts": ["results/../../outside"]}, "leads out"),
    ("build_pairs", {"prompts": ["--output={outside}"]}, "leads out"),
    ("build_pairs", {"seed": "0 --output={outside}"}, "no number"),
    ("build_pairs", {"target": "--output={outside}"}, "no plain text"),
    ("build_pairs", {"hygiene": ["paper", "--output", "{outside}"]}, "no plain text"),
    ("build_pairs", {"balance": "yes"}, "no value"),
    ("build_pairs", {"outpu": "results/a"}, "has no option"),
    ("build_pairs", {"output={outside}": True}, "has no option"),
    ("judge", {"judge": "oracle", "languages": [["-"], ["--output={outside}"]]}, "no plain text"),
    ("judge", {"judge": "oracle", "trust": True}, "has no option"),
    ("fidelity", {"state": "{outside}"}, "has no option"),
    ("summary", {"partial": True}, "unfinished"),
    ("summary", {"imported": {"a": 1}}, "leads out"),
    ("findings", {"low_resource": [["a"], "--tables={outside}"]}, "no plain text"),
    ("report", {"output": "{outside}"}, "leads out"),
    ("contamination", {"exact": float("inf")}, "no number"),
]


@pytest.mark.parametrize(("stage", "options", "said"), FORGED)
def test_options_of_a_stranger_reach_no_command_line(tmp_path, stage, options, said):
    outside = tmp_path / "outside"
    text = json.dumps({"stage": stage, "options": options}).replace("{outside}", str(outside))
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a.manifest.json").write_text(text, encoding="utf-8")
    index = {"root": "results", "runs": ["a"], "files": {"a.manifest.json": {"sha256": "", "bytes": 0}}}
    (folder / "bundle.json").write_text(json.dumps(index), encoding="utf-8")
    repack(folder)
    before = sorted(tmp_path.rglob("*"))
    found = [line for line in mismatches(folder) if line.startswith("a.manifest.json: is not repeated")]
    assert len(found) == 1 and said in found[0]
    assert sorted(tmp_path.rglob("*")) == before


def archive_of(path, *entries):
    """A gzipped tar archive of (name, changes of the header) with the content `x`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, changes in entries:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            for key, value in changes.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(b"x") if entry.isreg() and entry.size == 1 else None)
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("../evil", {})], "leads out"),
        ([("/tmp/evil", {})], "leads out"),
        ([("bundle/../../evil", {})], "leads out"),
        ([("bundle/a\\b", {})], "signs"),
        ([("elsewhere/a", {})], "not under bundle/"),
        ([("bundle/a", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "no regular file"),
        ([("bundle/a", {"type": tarfile.LNKTYPE, "linkname": "bundle/b"})], "no regular file"),
        ([("bundle/a", {"type": tarfile.CHRTYPE})], "no regular file"),
        ([("bundle/a", {"type": tarfile.FIFOTYPE})], "no regular file"),
        ([("bundle/a", {}), ("bundle/a", {})], "there twice"),
        ([("bundle/a", {}), ("bundle/a/b", {})], "cannot be unpacked"),
        ([("bundle/a", {"size": 2**40})], "larger than"),
        ([("bundle" + "/a" * 20, {})], "more than 16 parts"),
        ([("bundle/" + "a" * 250, {})], "longer than 200 bytes"),
        ([(f"bundle/{i}", {}) for i in range(30)], "more than 20 entries"),
        ([("bundle/a", {})], "no bundle"),
    ],
)
def test_an_archive_is_not_trusted(tmp_path, entries, said):
    path = archive_of(tmp_path / "bundle.tar.gz", *entries)
    done = script("verify", path, "--max-files", 20, check=False)
    assert done.returncode == 1 and said in done.stderr and "Remedy" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path.parent / "evil").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["bundle.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.DIRTYPE, tarfile.REGTYPE])
def test_a_bomb_ends_quickly(tmp_path, kind):
    entry = tarfile.TarInfo("bundle/a")
    entry.size, entry.type = 300 * 2**20, kind
    path = tmp_path / "bundle.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(entry.tobuf())
        for _ in range(300):
            file.write(bytes(2**20))
    done = script("verify", path, "--max-mib", 100, "--max-files", 100, check=False)
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "[" * 100000,
        '{"root": "results", "runs": [], "files": {}}',
        '{"root": "results", "runs": ["a"], "files": {"../a": {"sha256": "0"}}}',
        '{"root": "results", "runs": ["/a"], "files": {"a": {"sha256": "0"}}}',
        '{"root": "", "runs": ["a"], "files": {"a": {"sha256": "0"}}}',
        '{"root": "results", "runs": ["a"], "files": {"a": {}}}',
    ],
)
def test_an_index_is_not_trusted(tmp_path, index):
    (tmp_path / "bundle.json").write_text(index, encoding="utf-8")
    done = script("verify", tmp_path, check=False)
    assert done.returncode == 1 and "Remedy" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), (b"not an archive", "cannot be unpacked")])
def test_what_is_no_bundle(tmp_path, content, said):
    path = tmp_path / "bundle.tar.gz"
    if content:
        path.write_bytes(content)
    done = script("verify", path, check=False)
    assert done.returncode == 1 and said in done.stderr and "Remedy" in done.stderr


def test_a_torn_bundle(bundle, tmp_path):
    (tmp_path / "torn.tar.gz").write_bytes(bundle.read_bytes()[:20000])
    done = script("verify", tmp_path / "torn.tar.gz", check=False)
    assert done.returncode == 1 and "get the bundle again" in done.stderr


def test_help_teaches():
    done = script("verify", "--help", cwd=ROOT)
    assert "without a GPU" in done.stdout and "PATH" in done.stdout


def test_options_cannot_be_abbreviated():
    for arguments in (
        ("verify", "--cor", 2, "x"),
        ("audit", "select", "--outp", "x"),
        ("with_gpus", "--ask", 0, "--", "true"),
    ):
        done = script(*arguments, check=False)
        assert done.returncode == (2 if arguments[0] == "with_gpus" else 1) and "usage" in done.stderr
