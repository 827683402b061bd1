"""The mixtures of the two Tülu papers: plain concatenations, which the trainer shuffles."""

from __future__ import annotations

from tulu_jax.data.mixtures import Component, MixtureSpec, register_mixture

TULU_1 = """@misc{wang2023far,
  title = {How Far Can Camels Go? Exploring the State of Instruction Tuning on Open Resources},
  author = {Yizhong Wang and Hamish Ivison and Pradeep Dasigi and Jack Hessel and Tushar Khot and
            Khyathi Raghavi Chandu and David Wadden and Kelsey MacMillan and Noah A. Smith and
            Iz Beltagy and Hannaneh Hajishirzi},
  year = {2023},
  eprint = {2306.04751},
  archivePrefix = {arXiv},
}"""
TULU_2 = """@misc{ivison2023camels,
  title = {Camels in a Changing Climate: Enhancing LM Adaptation with Tulu 2},
  author = {Hamish Ivison and Yizhong Wang and Valentina Pyatkin and Nathan Lambert and
            Matthew Peters and Pradeep Dasigi and Joel Jang and David Wadden and Noah A. Smith and
            Iz Beltagy and Hannaneh Hajishirzi},
  year = {2023},
  eprint = {2311.10702},
  archivePrefix = {arXiv},
}"""


def _components(*datasets: str, prefix: str) -> tuple[Component, ...]:
    return tuple(Component(task=prefix + dataset) for dataset in datasets)


HUMAN = ("flan_v2", "cot", "dolly", "oasst1")
HUMAN_2 = ("flan_v2", "cot", "oasst1", "lima")

register_mixture(
    MixtureSpec(
        name="tulu_v1_human",
        description="What people wrote: the human mixture of the first paper.",
        citation=TULU_1,
        components=_components(*HUMAN, prefix="tulu_"),
    )
)
register_mixture(
    MixtureSpec(
        name="tulu_v1_human_gpt",
        description="Tülu: the human mixture, and what GPT-4, code-davinci and ChatGPT wrote.",
        citation=TULU_1,
        components=_components(*HUMAN, "gpt4_alpaca", "code_alpaca", "sharegpt", prefix="tulu_"),
    )
)
# Source: allenai/open-instruct scripts/prepare_train_data.sh@94055552c (`tulu_v2_human_mix`).
register_mixture(
    MixtureSpec(
        name="tulu_v2_human",
        description="The human mixture of Tülu 2, as the reference first listed it.",
        citation=TULU_2,
        components=_components(*HUMAN_2, prefix="tulu_v2_"),
    )
)
# Source: allenai/open-instruct open_instruct/reformat_datasets.py@503407ee8 (`tulu_v2`).
register_mixture(
    MixtureSpec(
        name="tulu_v2",
        description="Tülu 2: fewer examples of the large datasets, and harder ones.",
        citation=TULU_2,
        components=_components(
            *HUMAN_2,
            "gpt4_alpaca",
            "code_alpaca",
            "sharegpt",
            "wizardlm",
            "open_orca",
            "science",
            "hard_coded",
            prefix="tulu_v2_",
        ),
    )
)
