"""Models that cannot be used: each ends a stage with one message that names the model and the remedy, exit code 1."""

import ast
import http.server
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ENVIRONMENT, ROOT, rows, script, write_rows

from croco.models.engines import PolicyEngine, RewardEngine


@pytest.fixture
def copied(miniature, tmp_path):
    """Copies of the tiny policy and reward model, to break."""
    for name in ("policy", "reward"):
        shutil.copytree(miniature / name, tmp_path / name)
    return tmp_path


def edit(path, **changes):
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")


def generate(folder, prompts, *more, **options):
    return script("generate", "--prompts", prompts, "--model", folder / "policy", "--samples", 2, "--max-tokens", 8, "--state", folder / "state", "--output", folder / "out.jsonl", *more, **options)  # fmt: skip


def expect(done, *said):
    assert done.returncode == 1 and "Remedy" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert all(str(text) in done.stderr for text in said), done.stderr


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize(("name", "base"), [("Policy", "ChatModel"), ("RewardModel", "ChatScorer")])
def test_engines_keep_their_contract(engine, name, base):
    """By their syntax trees: vLLM need not be installed."""
    contract = {"Policy": PolicyEngine, "RewardModel": RewardEngine}[name]
    methods = {}
    for module, cls in (("chats", base), (f"{engine}_engine", name)):
        tree = ast.parse((ROOT / f"scripts/croco/models/{module}.py").read_text(encoding="utf-8"))
        body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls).body
        methods |= {node.name: [a.arg for a in node.args.args] for node in body if isinstance(node, ast.FunctionDef)}
    for method, function in inspect.getmembers(contract, inspect.isfunction):
        if not method.startswith("_"):
            assert methods[method] == list(inspect.signature(function).parameters), method


def test_policy_without_chat_template(copied, prompts):
    (copied / "policy/chat_template.jinja").unlink()
    expect(generate(copied, prompts["en"], check=False), "no chat template", copied / "policy")


def test_tokenizer_with_ids_the_model_has_no_embedding_for(copied, prompts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copied / "policy")
    tokenizer.add_tokens(["What is"])
    tokenizer.save_pretrained(copied / "policy")
    expect(generate(copied, prompts["en"], check=False), "the tokenizer gives the id", "embeddings")
    assert not (copied / "out.jsonl").exists()


def test_torn_weights(copied, prompts):
    weights = copied / "policy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    expect(generate(copied, prompts["en"], check=False), "cannot be loaded", copied / "policy")


def test_pickled_weights_are_not_read(copied, prompts):
    (copied / "policy/model.safetensors").rename(copied / "policy/pytorch_model.bin")
    done = generate(copied, prompts["en"], check=False)
    expect(done, "safetensors", "the weights are pickled (pytorch_model.bin)", copied / "policy")
    done = generate(copied, prompts["en"], "--engine-options", '{"use_safetensors": false}', check=False)
    expect(done, "the weights are pickled")


@pytest.mark.parametrize(
    "attack",
    ["''.__class__.__mro__[1].__subclasses__()", "messages.__class__.__init__.__globals__", "messages.append(1)"],
)
def test_a_chat_template_runs_in_a_sandbox(copied, prompts, attack):
    template = copied / "policy/chat_template.jinja"
    template.write_text(f"{{{{ {attack} }}}}{template.read_text()}", encoding="utf-8")
    done = generate(copied, prompts["en"])
    assert all(line["skip"] and not line["responses"] for line in rows(copied / "out.jsonl"))
    texts = [path.read_text(encoding="utf-8") for path in copied.glob("out*")]
    assert not [text for text in (*texts, done.stdout, done.stderr) if "<class" in text or "__builtins__" in text]


def test_reward_model_with_two_logits(copied, prompts):
    edit(copied / "reward/config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    generate(copied, prompts["en"])
    done = script("score", "--prompts", prompts["en"], "--generations", copied / "out.jsonl", "--model", copied / "reward", "--state", copied, "--output", copied / "s.jsonl", check=False)  # fmt: skip
    expect(done, "2 logits", str(copied / "reward"))


def test_adapter_of_another_tokenizer(copied, prompts):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(copied / "policy", dtype="float32")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(copied / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(copied / "policy")
    tokenizer.chat_template = tokenizer.chat_template + " "
    tokenizer.save_pretrained(copied / "adapter")
    done = script(
        "evaluate", "--model", copied / "policy", "--adapter", copied / "adapter", "--languages", "en", "--prompts", prompts["en"],
        "--max-tokens", 8, "--state", copied, "--output", copied / "run", check=False,
    )  # fmt: skip
    expect(done, "another tokenizer or chat template", str(copied / "adapter"))


def test_a_system_message_that_the_template_refuses_skips_its_prompt(copied, prompts):
    template = copied / "policy/chat_template.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + template.read_text()
    )
    lines = rows(prompts["en"])[:2]
    lines[0]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    generate(copied, write_rows(copied / "p.jsonl", lines))
    first, second = rows(copied / "out.jsonl")
    assert first["skip"] == "refused_by_template" and second["skip"] is None and len(second["responses"]) == 2


class Gated(http.server.BaseHTTPRequestHandler):
    """A hub on which every model is gated."""

    def do_GET(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 (named by http.server)

    def log_message(self, *_):
        pass


def test_gated_model_without_access(tmp_path, prompts):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**ENVIRONMENT, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret"}  # fmt: skip
    options = (
        "--prompts",
        prompts["en"],
        "--model",
        "org/gated",
        "--state",
        tmp_path,
        "--output",
        tmp_path / "o.jsonl",
    )
    command = [sys.executable, ROOT / "scripts/generate.py", *options]
    try:
        done = subprocess.run(
            list(map(os.fspath, command)), env=environment, capture_output=True, text=True, check=False
        )
    finally:
        server.shutdown()
    expect(done, "org/gated", "accept its licence")
    assert "hf_secret" not in done.stdout + done.stderr


def test_an_adapter_stays_unmerged_in_16_bits(copied, tmp_path):
    """Added to weights in bfloat16, a small change would mostly be rounded away."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from croco.models.transformers_engine import Policy

    policy = AutoModelForCausalLM.from_pretrained(copied / "policy", dtype=torch.bfloat16)
    names = ["q_proj", "up_proj"]
    tuned = get_peft_model(policy, LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    tuned.save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(copied / "policy")
    tokenizer.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([tokenizer("What is 1 plus 1?")["input_ids"]])
    loaded = Policy(copied / "policy", dtype="bfloat16", adapter=tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, tuned.eval()(ids).logits)
    assert any("lora_A" in name for name, _ in loaded.model.named_parameters())
    merged = Policy(copied / "policy", dtype="float32", adapter=tmp_path / "adapter")
    assert not any("lora_A" in name for name, _ in merged.model.named_parameters())
    tokens = loaded.encode([{"role": "user", "content": "What is 1 plus 1?"}])
    assert loaded.respond([tokens], [0], 0, 1.0, 4)[0]["n_tokens"] <= 4


def test_no_response_needs_a_position_that_the_model_lacks(copied):
    """In a batch all rows go on until the last response ends; a model with learned positions has no further one."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from croco.models.transformers_engine import Policy

    tokenizer = AutoTokenizer.from_pretrained(copied / "policy")
    torch.manual_seed(0)
    sizes = {"n_positions": 48, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **sizes))
    model.save_pretrained(copied / "learned")
    tokenizer.save_pretrained(copied / "learned")
    policy = Policy(copied / "learned")
    policy.stops = set()  # no response ends by itself
    prompts = [[5] * length for length in (4, 20, 4, 5)]
    assert [answer["n_tokens"] for answer in policy.respond(prompts, [1, 2, 3, 4], 0, 1, 64)] == [44, 28, 44, 43]
    assert [answer["n_tokens"] for answer in policy.respond(prompts, [1, 2, 3, 4], 0, 1, 8)] == [8, 8, 8, 8]
