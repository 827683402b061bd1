"""Single records, and what becomes of them."""

import json

from tasks import jsonl
from tulu_jax.data.faults import Faults

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
PAIR = {"prompt": "q", "completion": "a"}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
SYSTEM = {"role": "system", "content": "Be kind."}


def put(folder, *rows, name="a.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def read(folder, *rows, **options):
    """The messages of the rows, and the faults."""
    faults = Faults()
    made = jsonl.read(put(folder, *rows), faults=faults, **options)
    return [row["messages"] for row in made], faults


def answers(*flags):
    messages = []
    for number, flag in enumerate(flags):
        messages += [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": str(number)},
        ]
        messages[-1] |= flag
    return messages


def trained(messages):
    return [m.get("train", True) for m in messages if m["role"] == "assistant"]
