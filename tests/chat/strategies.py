"""Random conversations: ordinary words, and what has broken tokenizers before."""

import re

from hypothesis import strategies as st

ODD = (
    " ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "▁", "\x00", "\x1c", "\x85", "\u00a0",
    "\u200b", "\u2028", "\ufeff", "<", "</s", "<|user|>", "<|assistant|>", "|>", "camel", "12",
    "é", "e\u0301", "中文", "العربية", "🐫", "👩\u200d👩\u200d👧", "<0x0A>", "⁇", "def f():\n    x",
)  # fmt: skip

# st.text also draws string constants of the code under test.
SPECIAL = re.compile("</?s>|<unk>|<pad>|<[|](?!user[|]|assistant[|]|system[|])[a-z_]+[|]>")

TEXTS = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(ODD), max_size=12).map("".join)
).filter(lambda text: not SPECIAL.search(text))

SPECIAL_TEXTS = st.lists(st.sampled_from((*ODD, "<s>", "</s>", "<unk>")), max_size=8).map("".join)


def conversations(texts=TEXTS, max_size=6):
    """Lists of messages in any order of roles."""
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(("system", "user", "assistant")), "content": texts}
    )
    return st.lists(message, min_size=1, max_size=max_size)


def flagged(texts=TEXTS, max_size=6):
    """Conversations in which some messages say whether they are trained."""
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(("system", "user", "assistant")), "content": texts},
        optional={"train": st.booleans()},
    )
    return st.lists(message, min_size=1, max_size=max_size)


def without_flags(messages):
    """The same conversation, in which no message says whether it is trained."""
    return [{"role": m["role"], "content": m["content"]} for m in messages]
