"""The official files of the benchmarks, laid out as `tulu eval` reads them.

A checksum stands only where the published bytes were seen; archives that a server makes anew and
files that were not seen have none, and are held to what was fetched first (`checksums.json`).
Addresses: allenai/open-instruct:scripts/prepare_eval_data.sh, or those of a commit where the file
may have changed since.
"""

from __future__ import annotations

import dataclasses

from tulu_jax.download.sources import Source

GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"


@dataclasses.dataclass(frozen=True)
class BenchmarkFiles:
    """The files of one benchmark."""

    name: str
    """Its folder below the folder of all evaluation data."""
    sources: tuple[Source, ...]


_MMLU = "https://people.eecs.berkeley.edu/~hendrycks/data.tar"
_BBH = f"{GITHUB}/suzgunmirac/BIG-Bench-Hard/archive/refs/heads/main.zip"
_TYDIQA = "https://storage.googleapis.com/tydiqa/v1.1"
_HUMANEVAL_PLUS = "200defce9e3429d28ca215b6dd061c0f7f31c18b"
_TRUTHFULQA = "013686a06be7a7bde5bf8223943e106c7250123c"
_ALPACA_EVAL = "cd543a149df89434d8a54582c0151c0b945c3d20"
_IFEVAL = "19638399cc9e03623c5b9087a1d6fa8813974ce9"
_XSTEST = "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"

_TOXIGEN = {
    "asian": "0504967034122b691c16dbef10db3acb16492808ecc66d8cd2b2ae87454fd655",
    "black": "29ef85c5610d77a3a4bb050826ffb6e124ee48e11f5b63d34b29d616ef2ee1c3",
    "chinese": "7f99029bad4f71caff707787d6799d1d654fee140f22418691d1244e81ed2b21",
    "jewish": "f5bdf83ef8fd32435241cc5fcfc337c0a57bcf64eb7fb4aa3c8fe15eb86f1fd2",
    "latino": "60988864d728cc7b1644a72419181efc1d82b2342f636a5e76f34805e4a88537",
    "lgbtq": "7fb7da0d4ad1a485824111ab60f6030f01dd92dbc9342c76534c78faec061a16",
    "mental_disability": "5a71f51bf998c5111b5dd6d0b7d7edbaa445f27defbc1fdb798dd920974ad3e2",
    "mexican": "2fad743ced369e4a280165b7ea909f8cb30921840cbe5f9f454243cf9e4dcfd5",
    "middle_east": "29ffcca6defd3e4f2edd2237417c7617a3c7380de8f9c6cf13d8c087fa595223",
    "muslim": "aaa18a9bf72928f71cf3d0d8d4dfa298faeb015a8580f5c7e21ef7afaae3241a",
    "native_american": "01c2077f1007268ca11588d08f909ed9c01178148205ae417618d276227b9bbc",
    "physical_disability": "8cada46239a52a741faf47677d1ffbfa06dc31d3e480a03935a5aec89ea02dee",
    "trans": "6188dfd52082e552230a1332e2bf83a23e8410c5f353d32dca79f259c8daf8b8",
    "women": "eecdf3006847c267b9399045ce2fe002f884fe5b682dbef450f3477d7bb24497",
}
"""SHA-256 of the prompts about each group (microsoft/TOXIGEN@01517e81)."""

BENCHMARKS = (
    BenchmarkFiles(
        "mmlu",
        tuple(
            Source(_MMLU, part, packed="tar", member=f"data/{part}")
            for part in ("dev", "test")
        ),
    ),
    BenchmarkFiles(
        "gsm",
        (
            Source(
                f"{GITHUB}/openai/grade-school-math/raw/master/grade_school_math/data/test.jsonl",
                "test.jsonl",
                sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
            ),
        ),
    ),
    BenchmarkFiles(
        "bbh",
        tuple(
            Source(_BBH, part, packed="zip", member=f"BIG-Bench-Hard-main/{part}")
            for part in ("bbh", "cot-prompts")
        ),
    ),
    BenchmarkFiles(
        "tydiqa",
        tuple(
            Source(f"{_TYDIQA}/{file}", file)
            for file in ("tydiqa-goldp-v1.1-dev.json", "tydiqa-goldp-v1.1-train.json")
        ),
    ),
    BenchmarkFiles(
        "codex_humaneval",
        (
            Source(
                f"{GITHUB}/openai/human-eval/raw/master/data/HumanEval.jsonl.gz",
                "HumanEval.jsonl.gz",
                sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
            ),
        ),
    ),
    BenchmarkFiles(
        "humanevalplus",
        (
            Source(  # the release of this version has the file of the version before
                f"{RAW}/evalplus/humanevalplus_release/{_HUMANEVAL_PLUS}/"
                "HumanEvalPlus-OriginFmt.jsonl.gz",
                "HumanEvalPlus-OriginFmt.jsonl.gz",
                sha256="daa7661c8189924068069b0872a440b491edb60f8bdf431d5957adc88d18bae5",
            ),
        ),
    ),
    BenchmarkFiles(
        "toxigen",
        tuple(
            Source(
                f"{RAW}/microsoft/TOXIGEN/main/prompts/hate_{group}_1k.txt",
                f"hate_{group}.txt",
                sha256=digest,
            )
            for group, digest in _TOXIGEN.items()
        ),
    ),
    BenchmarkFiles(
        "truthfulqa",
        (
            Source(  # the questions on the main branch were revised after the paper
                f"{RAW}/sylinrl/TruthfulQA/{_TRUTHFULQA}/TruthfulQA.csv",
                "TruthfulQA.csv",
            ),
        ),
    ),
    BenchmarkFiles(
        "alpaca_farm",
        (
            Source(
                f"{RAW}/tatsu-lab/alpaca_eval/{_ALPACA_EVAL}/results/text_davinci_003/"
                "model_outputs.json",
                "text_davinci_003_model_outputs.json",
                sha256="af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b",
            ),
        ),
    ),
    BenchmarkFiles(
        "ifeval",
        (
            Source(
                f"{RAW}/google-research/google-research/{_IFEVAL}/"
                "instruction_following_eval/data/input_data.jsonl",
                "input_data.jsonl",
                sha256="67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
            ),
        ),
    ),
    BenchmarkFiles(
        "xstest",
        (
            Source(
                f"{RAW}/paul-rottger/exaggerated-safety/{_XSTEST}/xstest_prompts.csv",
                "xstest_prompts.csv",
                sha256="11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
            ),
        ),
    ),
)  # fmt: skip
