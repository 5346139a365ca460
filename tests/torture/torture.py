"""Kill a real run again and again, start the same command each time, and compare what is left with an undisturbed run.

  python tests/torture/torture.py --kills 60                 until so many kills are survived
  python tests/torture/torture.py --kills 60 --write         and put the table into docs/reliability.md
  .venv-vllm/bin/python tests/torture/torture.py --vllm      the policy on vLLM (its CPU build: make test-vllm installs it)

The run has every stage from prompts to the report: translation by a model, blocks, language identification, SFT, DPO in
two processes, tasks, and a judge. One
half of the kills comes at a random time after the start. The other half waits for a job of a certain stage, so that the
late stages are killed, too: those with the fewest kills so far, in the order of the run. A run in which that job no
longer starts simply ends, and that is no kill.

Nothing is done by hand between a kill and the next start. Afterwards each output must have the bytes of the undisturbed
run, each manifest the same content except what a process records about itself, and nothing may be left over. Exit code
1: the message says what was different.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("Snakefile", "rules", "report", "scripts", "config", "profiles", "envs")
LOCKS = ("requirements.lock", "requirements-vllm.lock")
RESULTS = "results/torture"
COMMAND = ["-m", "snakemake", "--cores", "2", "--resources", "gpu=2", "--configfile", "torture.yaml"]
# What a process says of itself, and how much of the work it found done: runs names the step each start trained from.
OF_THE_PROCESS = (
    "started",
    "seconds",
    "job",
    "peak_memory_mb",
    "cpu",
    "gpu_names",
    "sampled",
    "asked",
    "evaluated",
    "scored",
    "translated",
    "tokens_per_second",
    "unused_weights",
    "runs",
)
KINDS = ("group", "head", "child", "hangup", "terminate")
JUDGE_PROMPT = "{nonce} {language}: {question}\nA: {answer_a}\nB: {answer_b}\n{nonce}"
PER_RUN = 12  # kills before a run may end
POLL = 0.1  # seconds between two looks at the jobs
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        folder = Path(folder)
        origin = make_project(folder / "origin", args.vllm)
        whole = folder / "undisturbed"
        shutil.copytree(origin, whole, symlinks=True)
        began = time.monotonic()
        stages = watch(start(whole))
        print(f"undisturbed run: {time.monotonic() - began:.0f} s, stages: {', '.join(stages)}", file=sys.stderr)
        check_done(whole)
        survived, differences, deadline = Counter(), [], time.monotonic() + args.minutes * 60
        draw = random.Random(args.seed)
        runs = 0
        while survived.total() < args.kills and time.monotonic() < deadline and not differences:
            project = folder / f"run{runs}"
            shutil.copytree(origin, project, symlinks=True)
            kills = min(PER_RUN, args.kills - survived.total())
            targets = draw_targets(stages, survived, draw, (kills + 1) // 2)
            survived += torture(project, draw, kills, deadline, targets)
            differences = compare(whole, project)
            runs += 1
            shutil.rmtree(project)
    report(args, stages, survived, runs, differences)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="kills to survive (default: 60)")
    parser.add_argument("--minutes", type=float, default=60, help="no new run after so many minutes (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds of kills (default: 0)")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    parser.add_argument("--vllm", action="store_true", help="generate and answer with vLLM instead of transformers")
    args = parser.parse_args()
    if args.vllm and not find_spec("vllm"):
        parser.error("--vllm: vLLM is not installed. Run make test-vllm, then start with .venv-vllm/bin/python")
    return args


def make_project(folder, vllm):
    """A copy of the project with tiny models, prompts and two GPUs that only nvidia-smi knows of."""
    folder.mkdir()
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for name in LOCKS:
        shutil.copy(ROOT / name, folder / name)
    config = yaml.safe_load(Path(__file__).with_name("torture.yaml").read_text(encoding="utf-8"))
    if vllm:
        config["policies"] = [row | {"engine": "vllm", "resources": {"gpu": 0}} for row in config["policies"]]
    (folder / "torture.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    made, languages = folder / "data", ["--languages", "en", "de", "nl"]
    run_script(folder, "world", *languages, "--output", made)
    sizes = ["--chats", 4000, "--sentences", 1000]
    run_script(folder, "policy", "--world", made, *languages, *sizes, "--output", made / "policy")
    run_script(folder, "reward", *languages, "--policy", made / "policy", "--pairs", 100, "--output", made / "reward")
    (made / "judge.txt").write_text(JUDGE_PROMPT, encoding="utf-8")
    fake = folder / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nprintf '0, GPU-torture-0\\n1, GPU-torture-1\\n'\n")
    fake.chmod(0o755)
    return folder


def run_script(folder, *arguments):
    subprocess.run(
        [sys.executable, "scripts/miniature.py", *map(str, arguments)], cwd=folder, env=ENVIRONMENT, check=True
    )


def start(project):
    """Starts the run in a process group of its own; what it prints is in run.log."""
    environment = ENVIRONMENT | {
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "CROCO_GPU_LOCKS": str(project / "gpus"),
    }
    with open(project / "run.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *COMMAND], cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def check_done(project):
    """Ends the program unless the run in ``project`` has reached its end."""
    if not (project / RESULTS / "report.html").exists():
        sys.exit(f"error: the run has not ended well:\n{(project / 'run.log').read_text()[-4000:]}")


def watch(head):
    """Waits for the end of the run; {stage: seconds of its longest job}, in the order of their first jobs."""
    stages = {}
    while head.poll() is None:
        for stage, process in list_jobs(head).items():
            stages[stage] = max(stages.get(stage, 0), time.time() - process.create_time())
        time.sleep(POLL)
    return stages


def draw_targets(stages, survived, draw, number):
    """[(stage, seconds of its longest job)] of stages with the fewest kills so far, in the order of the run."""
    kills = Counter()
    for (_, stage), count in survived.items():
        kills[stage] += count
    rarest = sorted(stages, key=lambda stage: (kills[stage], draw.random()))[:number]
    return [(stage, seconds) for stage, seconds in stages.items() if stage in rarest]


def torture(project, draw, kills, deadline, targets):
    """Kills the run so many times, every second time in the next target, then lets it end; {(kind, stage): number}."""
    survived = Counter()
    while True:
        head = start(project)
        running = None
        if survived.total() < kills and time.monotonic() < deadline:
            target = targets.pop(0) if targets and survived.total() % 2 == 0 else None
            if wait_for_moment(head, draw, target):
                kind = draw.choice(KINDS)
                running = kill(head, kind, draw, target)
        code = head.wait(900)
        if code == 0:  # left alone, or killed too late
            check_done(project)
            return survived
        if running is None:
            sys.exit(f"error: a start ended with {code}:\n{(project / 'run.log').read_text()[-6000:]}")
        survived[kind, running] += 1
        print(f"{survived.total()} kills: {kind} while {running}", file=sys.stderr)


def wait_for_moment(head, draw, target):
    """Waits for a random moment after the start, or within a job of the target; False if the run ends before."""
    if target is None:
        seconds = draw.uniform(0.5, 16)
    else:
        stage, longest = target
        while head.poll() is None and stage not in list_jobs(head):
            time.sleep(POLL)
        seconds = draw.uniform(0, longest)
    try:
        head.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def kill(head, kind, draw, target):
    """Kills the run, or a part of it, and returns the stage that ran, the target's if there is one."""
    jobs = list_jobs(head)
    stages = [target[0]] if target and target[0] in jobs else sorted(jobs) or ["planning"]
    running = draw.choice(stages)
    if kind == "group":
        os.killpg(head.pid, signal.SIGKILL)
    elif kind == "head" or (kind == "child" and not jobs):
        head.kill()
    elif kind == "child":
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended: the run goes on to its end
            jobs[running].kill()
    else:
        head.send_signal(signal.SIGHUP if kind == "hangup" else signal.SIGTERM)
    return running


def list_jobs(head):
    """{name of a stage script: its process} of the jobs that run."""
    jobs = {}
    for process in psutil.Process(head.pid).children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        # The shell around a job lives longer than the job. A job that waits for its GPUs names its stage last.
        scripts = re.findall(r"scripts/(\w+)\.py", " ".join(command))
        if scripts and "python" in Path(command[0]).name:
            jobs[scripts[-1]] = process
    return jobs


def compare(whole, project):
    """What of the outputs is not as in the undisturbed run."""
    expected, found = (read_outputs(path / RESULTS) for path in (whole, project))
    different = [
        f"{name}: {'missing' if name in expected else 'left over'}" for name in sorted(expected.keys() ^ found)
    ]
    for name in sorted(expected.keys() & found):
        one, other = expected[name], found[name]
        if one != other:
            keys = [key for key in one if one[key] != other.get(key)] if isinstance(one, dict) else "bytes"
            different.append(f"{name}: {keys}")
    return different


def read_outputs(results):
    """{name: content} of all files; of state, records and logs only what must not be left over."""
    outputs = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.is_dir():
            continue
        if name.parts[0] in ("state", ".snakemake", "logs", "benchmarks"):
            if path.name.endswith(".partial") or (path.name == "lock" and name.parts[0] == ".snakemake"):
                outputs[name.as_posix()] = None
        elif name.name == "report.html":
            outputs[name.as_posix()] = None  # shows times
        elif name.name.endswith("manifest.json"):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            outputs[name.as_posix()] = {key: value for key, value in manifest.items() if key not in OF_THE_PROCESS}
        else:
            outputs[name.as_posix()] = path.read_bytes()
    return outputs


def report(args, stages, survived, runs, differences):
    lines = [f"| what ran | {' | '.join(KINDS)} |", f"|---|{'---:|' * len(KINDS)}"]
    lines += [
        f"| {stage} | {' | '.join(str(survived[kind, stage]) for kind in KINDS)} |" for stage in ("planning", *stages)
    ]
    lines.append(
        f"| all {survived.total()} | {' | '.join(str(sum(n for (k, _), n in survived.items() if k == kind)) for kind in KINDS)} |"
    )
    text = "\n".join(lines)
    print(f"{text}\n{runs} runs, {survived.total()} kills, {len(differences)} differences")
    if args.write and not differences:
        path = ROOT / "docs" / "reliability.md"
        mark = "kills with vLLM" if args.vllm else "kills"
        marks = rf"(<!-- {mark} -->\n).*?(<!-- end of kills -->)"
        counted = f"{survived.total()} kills in {runs} runs (seed {args.seed}): no difference, nothing left over, no manual step."
        whole = path.read_text(encoding="utf-8")
        new = re.sub(marks, lambda match: f"{match[1]}{counted}\n\n{text}\n{match[2]}", whole, flags=re.DOTALL)
        path.write_text(new, encoding="utf-8")
    if differences:
        sys.exit("error: " + "\n".join(differences))


if __name__ == "__main__":
    main()
