"""What lm-evaluation-harness 0.4.13 asks as `local-completions`, and reads, beside transformers.

Its wire format is spoken here as `lm_eval/models/openai_completions.py` does; the package itself is
large.
"""

import numpy as np
import pytest
import torch
import transformers

from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.generate import Engine
from tulu_jax.serve.guard import Limits
from tulu_jax.serve.runner import Runner
from tulu_jax.serve.service import Service

from .served import in_process

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHOTS = "Lily likes red. Tom likes blue. Mia likes green.\n" * 6
PAIRS = [
    (SHOTS + opening, continuation)
    for opening in ("Once upon a time", "The dog", "Ben said", "One day")
    for continuation in (" there was a little girl", " ran to the park.", " 猫 sat", ", \n")
]


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "models" / "stories260k"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return model.float().eval()


@pytest.fixture(scope="module")
def client(folder, tokenizer):
    config, params = hf.load(folder)
    engine = Engine(config, params, slots=4, tokenizer=tokenizer)
    service = Service(Runner(engine, 64), tokenizer, "stories", Limits())
    with in_process(service) as client:
        client.stats = engine.stats
        yield client


def ask(client, contexts, continuations):
    """(log-probability, whether greedy) of each continuation, as the harness has them."""
    tokens = [
        context + continuation
        for context, continuation in zip(contexts, continuations, strict=True)
    ]
    body = {
        "model": "stories", "prompt": tokens, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": True,
    }  # fmt: skip
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    found = []
    choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
    for choice, context, own in zip(choices, contexts, tokens, strict=True):
        values = choice["logprobs"]["token_logprobs"]
        assert len(values) == len(choice["logprobs"]["top_logprobs"]) == len(own) + 1
        values = values[len(context) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        found.append((sum(values), greedy))
    return found


def expected(theirs, context, continuation):
    with torch.no_grad():
        logits = theirs(torch.tensor([context + continuation])).logits[0]
    logprobs = torch.log_softmax(logits, -1)[len(context) - 1 : -1]
    chosen = torch.tensor(continuation)
    total = logprobs.gather(1, chosen[:, None]).sum().item()
    return total, bool((logprobs.argmax(-1) == chosen).all())


def test_loglikelihood_is_transformers_log_softmax(client, tokenizer, theirs):
    contexts = [[1, *tokenizer.encode_text(context)] for context, _ in PAIRS]
    continuations = [tokenizer.encode_text(text) for _, text in PAIRS]
    with torch.no_grad():  # one that is greedy for certain
        made = theirs.generate(torch.tensor([contexts[0]]), max_new_tokens=12, do_sample=False)
    contexts.append(contexts[0])
    continuations.append(made[0, len(contexts[0]) :].tolist())
    before = client.stats.shared_tokens
    found = ask(client, contexts, continuations)
    for one, context, continuation in zip(found, contexts, continuations, strict=True):
        total, greedy = expected(theirs, context, continuation)
        assert one[0] == pytest.approx(total, abs=1e-4 * len(continuation))
        assert one[1] == greedy
    assert [greedy for _, greedy in found].count(True) >= 1
    assert client.stats.shared_tokens - before > 10 * 64  # of the shots, that all have in common


def test_each_number_is_transformers_to_1e4(client, tokenizer, theirs):
    prompt = [1, *tokenizer.encode_text(SHOTS + "Once upon a time")]
    body = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 5}
    logprobs = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    with torch.no_grad():
        whole = torch.log_softmax(theirs(torch.tensor([prompt])).logits[0], -1).numpy()[:-1]
    values = np.array(logprobs["token_logprobs"][1:])
    np.testing.assert_allclose(values, whole[np.arange(len(whole)), prompt[1:]], atol=1e-4)
    best = [max(tops.values()) for tops in logprobs["top_logprobs"][1:]]
    np.testing.assert_allclose(best, whole.max(-1), atol=1e-4)


def test_generation_is_transformers_greedy_one(client, tokenizer, theirs):
    prompts = [[1, *tokenizer.encode_text(context)] for context, _ in PAIRS[::4]]
    body = {
        "prompt": prompts, "model": "stories", "max_tokens": 24, "temperature": 0,
        "stop": ["\n\n", "</s>"], "seed": 1234,
    }  # fmt: skip
    choices = client.post("/v1/completions", json=body).json()["choices"]
    for choice, prompt in zip(choices, prompts, strict=True):
        with torch.no_grad():
            made = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        text = tokenizer.decode(made[0, len(prompt) :].tolist(), after=True)
        assert choice["text"] == text.split("\n\n")[0]
